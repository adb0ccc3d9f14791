#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""``openstack server guest details``: what the agent tells of its guest."""

import argparse
from collections.abc import Mapping
from typing import Any

from cliff import columns
from openstack import exceptions as sdk_exceptions
from osc_lib.command import command

from guest_agent_ext.osc import base

#: The parts in the order in which they are shown.
FIELDS = (
    'os',
    'host_name',
    'timezone',
    'time',
    'users',
    'interfaces',
    'filesystems',
    'disks',
    'vcpus',
)
_PERCENT = 100


class _Part(columns.FormattableColumn[Any]):
    """A part that a table shows in lines for people.

    Other formats show it as the API does.
    """

    def human_readable(self) -> str:
        return '\n'.join(_lines(self._value))


class ShowDetails(base.ServerCommand, command.ShowOne):
    """Show what the guest agent of a server tells of the guest"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--field',
            metavar='<field>',
            choices=FIELDS,
            action='append',
            help='Only this part (repeat for more): ' + ', '.join(FIELDS),
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Row:
        names = parsed_args.field or FIELDS
        response = self.compute().get(
            base.path_of(self.server_id(parsed_args), 'details'),
            params={'fields': ','.join(names)},
        )
        sdk_exceptions.raise_from_response(response)
        told = response.json()['guest_agent_details']
        return (
            (*names, 'unavailable'),
            [_Part(told.get(name)) for name in (*names, 'unavailable')],
        )


def _lines(value: Any) -> list[str]:
    """Return the lines of a part: one an item, or one a field."""
    if value is None:
        return []
    if isinstance(value, list):
        return [_item(item) for item in value]
    if isinstance(value, dict):
        return [f'{name}: {told}' for name, told in value.items()]
    return [str(value)]


def _item(item: Any) -> str:
    """Return an item of a list in one line."""
    if not isinstance(item, dict):
        return str(item)
    words = [
        f'{name}={told}'
        for name, told in item.items()
        if not isinstance(told, list | dict)
    ]
    words += [
        f'{address["ip_address"]}/{address["prefix"]}'
        for address in item.get('ip_addresses', ())
    ]
    return ' '.join([*words, *_use(item)])


def _use(item: Mapping[str, Any]) -> list[str]:
    """Return how full a file system is."""
    total = item.get('total_bytes')
    if not total or item.get('used_bytes') is None:
        return []
    return [f'({item["used_bytes"] * _PERCENT // total} %)']
