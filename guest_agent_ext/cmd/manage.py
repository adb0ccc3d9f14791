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

"""guest-agent-manage: maintains the tables and the known hosts."""

import argparse
from collections.abc import Callable
import sys
from typing import TypeAlias

from nova import objects
from oslo_config import cfg
from oslo_log import log as logging
import prettytable

from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext.cmd import bar
from guest_agent_ext.cmd import options
from guest_agent_ext.conductor import purge as conductor_purge
from guest_agent_ext.db import hosts
from guest_agent_ext.db import migration
from guest_agent_ext.db import session

CONF = conf.CONF

_Subparsers: TypeAlias = 'argparse._SubParsersAction[argparse.ArgumentParser]'


def db_sync() -> int:
    """Create or upgrade the tables for this release."""
    migration.sync(CONF.command.version)
    return db_version()


def db_version() -> int:
    """Print the version of the tables."""
    print(migration.version() or 'no tables yet')
    return 0


def purge() -> int:
    """Remove commands that are older than their retention.

    Also those beyond the bounds of what is kept, and those of servers that
    Nova has forgotten. guest-agent-conductor does the same every minute.
    """
    removed = 0
    with bar.of_items(conductor_purge.count()) as advance:
        for batch in conductor_purge.run():
            advance(batch)
            removed += batch
    print('Removed commands: %d' % removed)
    return 0


def host_list() -> int:
    """List the guest-agent-compute services and their unfinished commands."""
    table = prettytable.PrettyTable(
        [
            'Host',
            'Cell',
            'State',
            'Version',
            'Last seen',
            'Running',
            'Pending',
        ],
        align='l',
    )
    down_time = CONF.guest_agent.service_down_time
    for found in hosts.list_all():
        table.add_row(
            [
                found.host,
                found.cell_uuid,
                found.state(down_time),
                found.version,
                found.last_seen_at,
                found.running,
                found.pending,
            ]
        )
    print(table)
    return 0


def host_delete() -> int:
    """Remove the guest-agent-compute service of a host that is gone."""
    try:
        hosts.remove(
            CONF.command.compute_host,
            CONF.command.cell,
            CONF.guest_agent.service_down_time,
        )
    except exception.HostError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


_CATEGORIES = {'db': 'Manage the tables.', 'host': 'Manage the known hosts.'}
_ACTIONS: dict[tuple[str, str | None], Callable[[], int]] = {
    ('db', 'sync'): db_sync,
    ('db', 'version'): db_version,
    ('host', 'list'): host_list,
    ('host', 'delete'): host_delete,
    ('purge', None): purge,
}


def _add_parsers(subparsers: _Subparsers) -> None:
    categories: dict[str, _Subparsers] = {}
    for (category, name), action in _ACTIONS.items():
        if name is None:
            subparsers.add_parser(
                category, help=_summary(action)
            ).set_defaults(action=None)
            continue
        if category not in categories:
            parser = subparsers.add_parser(
                category, help=_CATEGORIES[category]
            )
            categories[category] = parser.add_subparsers(
                dest='action', required=True
            )
        parser = categories[category].add_parser(name, help=_summary(action))
        if action is db_sync:
            parser.add_argument(
                'version',
                nargs='?',
                default='head',
                help='version to upgrade to; the default is '
                'the one that this release needs',
            )
        if action is host_delete:
            # "host" is an option of Nova's, which this would set.
            parser.add_argument(
                'compute_host', metavar='HOST', help='name of the compute host'
            )
            parser.add_argument(
                '--cell',
                help='uuid of the cell, if several '
                'cells have a host of this '
                'name',
            )


def _summary(action: Callable[[], int]) -> str:
    return (action.__doc__ or '').splitlines()[0]


def main() -> int:
    """Run the action that the command line names, and return its status."""
    CONF.register_cli_opt(
        cfg.SubCommandOpt(
            'command',
            title='Commands',
            handler=_add_parsers,
            help='Command to run; each has its own --help',
        )
    )
    options.parse()
    # stdout is for results.
    CONF.set_default('use_stderr', True)
    logging.setup(CONF, 'guest_agent_ext')
    objects.register_all()
    session.configure(CONF)
    return _ACTIONS[CONF.command.name, CONF.command.action]()
