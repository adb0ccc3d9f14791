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


"""What ``guest_facts`` does, here on the controller."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import ipaddress
from typing import Any

from ansible.plugins import action

TRANSPORT = 'guest_agent_ext.guest_agent.server'


class ActionModule(action.ActionBase):
    """Asks the guest agent of a server for facts."""

    _supports_check_mode = True
    _requires_connection = True
    TRANSFERS_FILES = False

    def run(
        self, tmp: None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the facts."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        if self._connection.transport != TRANSPORT:
            return dict(
                result,
                failed=True,
                msg=f'ansible_connection must be {TRANSPORT}, not '
                f'{self._connection.transport}',
            )
        return dict(
            result, ansible_facts=facts_of(self._connection.show('details'))
        )


def facts_of(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts by the names that Ansible has for them.

    :param details: details of the guest, as the API has them
    """
    found = {
        'guest_agent': dict(details),
        'hostname': details.get('host_name'),
        **dict(_system(details.get('os') or {})),
        **dict(_network(details.get('interfaces'))),
    }
    if details.get('vcpus') is not None:
        found['processor_vcpus'] = len(details['vcpus'])
    if details.get('filesystems') is not None:
        found['mounts'] = [
            {
                'mount': item['mountpoint'],
                'device': item['name'],
                'fstype': item['type'],
                **dict(_size(item)),
            }
            for item in details['filesystems']
        ]
    return {name: value for name, value in found.items() if value is not None}


def _system(told: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield 'kernel', told.get('kernel_release')
    yield 'architecture', told.get('machine')
    yield 'distribution_version', told.get('version_id')
    name = told.get('name')
    # "Debian GNU/Linux" is Debian there.
    yield 'distribution', name and name.split()[0]


def _network(
    interfaces: list[dict[str, Any]] | None,
) -> Iterator[tuple[str, Any]]:
    if interfaces is None:
        return
    yield 'interfaces', [item['name'] for item in interfaces]
    addresses = [
        ipaddress.ip_address(address['ip_address'].partition('%')[0])
        for item in interfaces
        for address in item.get('ip_addresses', ())
    ]
    for version in (4, 6):
        yield (
            f'all_ipv{version}_addresses',
            [
                str(address)
                for address in addresses
                if address.version == version
                and not (address.is_loopback or address.is_link_local)
            ],
        )


def _size(item: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    total, used = item.get('total_bytes'), item.get('used_bytes')
    if total is not None and used is not None:
        yield 'size_total', total
        yield 'size_available', total - used
