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

"""guest-agent-manage: the tables, for operators."""

from collections.abc import Callable
import sys
from typing import Any

from nova import config
from nova import objects
from oslo_config import cfg
from oslo_log import log as logging

from guest_agent_ext import conf
from guest_agent_ext.cmd import progress
from guest_agent_ext.conductor import purge as conductor_purge
from guest_agent_ext.db import migration
from guest_agent_ext.db import session

CONF = conf.CONF


def db_sync() -> int:
    """Bring the tables forward to what this release needs."""
    migration.sync(CONF.command.version)
    return db_version()


def db_version() -> int:
    """Print the version that the tables have."""
    print(migration.version() or 'no tables yet')
    return 0


def purge() -> int:
    """Remove the commands that are kept no longer.

    guest-agent-conductor does so by itself, a minute after another.
    """
    bar = progress.Bar(conductor_purge.count())
    with bar:
        for removed in conductor_purge.run():
            bar.advance(removed)
    print('Removed commands: %d' % bar.done)
    return 0


_ACTIONS: dict[tuple[str, str | None], Callable[[], int]] = {
    ('db', 'sync'): db_sync,
    ('db', 'version'): db_version,
    ('purge', None): purge,
}


def _add_parsers(subparsers: Any) -> None:
    categories: dict[str, Any] = {}
    for (category, name), action in _ACTIONS.items():
        if name is None:
            subparsers.add_parser(
                category, help=_summary(action)
            ).set_defaults(action=None)
            continue
        if category not in categories:
            parser = subparsers.add_parser(category)
            categories[category] = parser.add_subparsers(
                dest='action', required=True
            )
        parser = categories[category].add_parser(name, help=_summary(action))
        if action is db_sync:
            parser.add_argument(
                'version',
                nargs='?',
                default='head',
                help='as far as this version',
            )


def _summary(action: Callable[[], int]) -> str:
    return (action.__doc__ or '').splitlines()[0]


def main() -> int:
    CONF.register_cli_opt(
        cfg.SubCommandOpt(
            'command',
            title='Commands',
            handler=_add_parsers,
            help='What to do; each has its own --help',
        )
    )
    config.parse_args(sys.argv)
    # stdout is for what was asked.
    CONF.set_default('use_stderr', True)
    logging.setup(CONF, 'guest_agent_ext')
    objects.register_all()
    session.configure(CONF)
    return _ACTIONS[CONF.command.name, CONF.command.action]()
