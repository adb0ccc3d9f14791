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

"""guest-agent-status: checks that the extension is completely installed."""

from collections.abc import Callable
import configparser
import functools
import sys

from nova import objects
from nova.limit import utils as limit_utils
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_limit import exception as limit_exc
from oslo_upgradecheck import upgradecheck

from guest_agent_ext import conf
from guest_agent_ext import limits
from guest_agent_ext.cmd import options
from guest_agent_ext.conductor import servers
from guest_agent_ext.db import hosts
from guest_agent_ext.db import migration
from guest_agent_ext.db import session

CONF = conf.CONF

_FACTORY = 'guest_agent_ext.api.filter:filter_factory'
_LIMITER = 'guest_agent_ext.api.sizelimit:filter_factory'
_PIPELINES = (
    'composite:openstack_compute_api_v21',
    'composite:openstack_compute_api_v21_legacy_v2_compatible',
)

#: Words in the definition of oslo.middleware's filter that limits bodies.
_STOCK_LIMITER = ('RequestBodySizeLimiter', 'egg:oslo.middleware#sizelimit')
#: Maximum number of hosts that a result names.
MAX_NAMES = 10

_Check = Callable[['Checks'], upgradecheck.Result]


def _answered(check: _Check) -> _Check:
    """Decorate a check so that an exception becomes a failure."""

    @functools.wraps(check)
    def wrapper(self: 'Checks') -> upgradecheck.Result:
        try:
            return check(self)
        except Exception as error:
            return _failure(
                'The check failed: %s: %s' % (type(error).__name__, error)
            )

    return wrapper


class Checks(upgradecheck.UpgradeCommands):
    """The checks of ``guest-agent-status upgrade check``."""

    @_answered
    def check_tables(self) -> upgradecheck.Result:
        """Check that the tables have the version of this release."""
        try:
            found = migration.version()
        except db_exc.CantStartEngineError:
            return _failure(
                'No database: neither [guest_agent_database] '
                'connection nor [api_database] connection is set'
            )
        if found == migration.head():
            return _success()
        return _failure(
            'The tables have version %s but this release needs '
            '%s: run "guest-agent-manage db sync"' % (found, migration.head())
        )

    @_answered
    def check_paste(self) -> upgradecheck.Result:
        """Check that nova-api's pipelines have our filter."""
        name = CONF.wsgi.api_paste_config
        path = CONF.find_file(name)
        if path is None:
            return _warning(
                'There is no %s on this machine: run this check '
                'where nova-api runs' % name
            )
        paste = configparser.RawConfigParser()
        paste.read(path)
        missing = [
            pipeline
            for pipeline in _PIPELINES
            if not _has_filter(paste, pipeline)
        ]
        if missing:
            return _failure(
                'In %s, the filter of %s is not the last one '
                'before the application in: %s'
                % (path, _FACTORY, ', '.join(missing))
            )
        limited = [
            pipeline
            for pipeline in _PIPELINES
            if _has_stock_limiter(paste, pipeline)
        ]
        if limited:
            return _warning(
                'In %s, the filter that limits bodies is that of '
                'oslo.middleware in: %s. It refuses large commands, and files '
                'larger than [oslo_middleware] max_request_body_size bytes, '
                'with 413: set its paste.filter_factory to %s'
                % (path, ', '.join(limited), _LIMITER)
            )
        return _success()

    @_answered
    def check_hosts(self) -> upgradecheck.Result:
        """Check that each host with nova-compute has guest-agent-compute."""
        ours = {(found.cell_uuid, found.host) for found in hosts.list_all()}
        missing = sorted(
            host
            for cell in servers.cells()
            for host in servers.computes(cell)
            if (cell.uuid, host) not in ours
        )
        if not missing:
            return _success()
        more = len(missing) - MAX_NAMES
        return _warning(
            'guest-agent-compute has never run on %d hosts with nova-compute, '
            'and no command runs in their servers: %s%s'
            % (
                len(missing),
                ', '.join(missing[:MAX_NAMES]),
                ' and %d more' % more if more > 0 else '',
            )
        )

    @_answered
    def check_limit(self) -> upgradecheck.Result:
        """Check that Keystone has the limit that applies."""
        if not limit_utils.use_unified_limits():
            return _success()
        try:
            return _check_registered()
        except limits.UNREADABLE as error:
            return _failure('Cannot read the limits of Keystone: %s' % error)

    _upgrade_checks = (
        ('Tables', check_tables),
        ('Paste filter', check_paste),
        ('Hosts', check_hosts),
        ('Registered limit', check_limit),
    )


def _check_registered() -> upgradecheck.Result:
    registered = limit_utils._identity_client().registered_limits()
    if limits.RESOURCE in {limit.resource_name for limit in registered}:
        return _success()
    nobody_s = limit_exc.ProjectOverLimit(
        None, [limit_exc.OverLimitInfo(limits.RESOURCE, 0, 0, 1)]
    )
    if limit_utils.should_enforce(nobody_s):
        return _failure(
            'Keystone has no registered limit of %s: all commands '
            'are refused' % limits.RESOURCE
        )
    return _warning(
        'Keystone has no registered limit of %s: the number of '
        'commands of a project is not limited' % limits.RESOURCE
    )


def _has_filter(paste: configparser.RawConfigParser, pipeline: str) -> bool:
    ours = {
        section.removeprefix('filter:')
        for section in paste.sections()
        if paste.get(section, 'paste.filter_factory', fallback=None)
        == _FACTORY
    }
    filters = _filters(paste, pipeline)
    return bool(filters) and filters[-1] in ours


def _has_stock_limiter(
    paste: configparser.RawConfigParser, pipeline: str
) -> bool:
    return any(
        words in paste.get(f'filter:{name}', option, fallback='')
        for name in _filters(paste, pipeline)
        for words in _STOCK_LIMITER
        for option in ('paste.filter_factory', 'use')
    )


def _filters(paste: configparser.RawConfigParser, pipeline: str) -> list[str]:
    """Return the filters of a pipeline, in their order."""
    return paste.get(pipeline, 'keystone', fallback='').split()[:-1]


def _success() -> upgradecheck.Result:
    return upgradecheck.Result(upgradecheck.Code.SUCCESS)


def _warning(details: str) -> upgradecheck.Result:
    return upgradecheck.Result(upgradecheck.Code.WARNING, details)


def _failure(details: str) -> upgradecheck.Result:
    return upgradecheck.Result(upgradecheck.Code.FAILURE, details)


def main() -> int:
    """Run the checks, and return the worst result as exit status."""
    upgradecheck.register_cli_options(CONF, Checks())
    try:
        options.parse()
    except cfg.Error as error:
        sys.stderr.write('Cannot read the configuration: %s\n' % error)
        return int(upgradecheck.Code.FAILURE)
    objects.register_all()
    session.configure(CONF)
    return int(upgradecheck.run(CONF))
