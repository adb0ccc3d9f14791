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

"""guest-agent-status: is what the extension needs in place?"""

import configparser
import sys
from typing import Any

from nova import config
from nova.limit import utils as limit_utils
from oslo_db import exception as db_exc
from oslo_limit import exception as limit_exc
from oslo_upgradecheck import upgradecheck

from guest_agent_ext import conf
from guest_agent_ext.api import quota
from guest_agent_ext.db import migration
from guest_agent_ext.db import session

CONF = conf.CONF

_FACTORY = 'guest_agent_ext.api.filter:filter_factory'
_PIPELINES = (
    'composite:openstack_compute_api_v21',
    'composite:openstack_compute_api_v21_legacy_v2_compatible',
)


class Checks(upgradecheck.UpgradeCommands):
    """What ``upgrade check`` looks at."""

    def check_tables(self) -> Any:
        """Look whether the tables are those of this release."""
        try:
            found = migration.version()
        except db_exc.DBError as error:
            return _failure('The database cannot be read: %s' % error)
        if found == migration.head():
            return _success()
        return _failure(
            'The tables have version %s, this release needs %s: '
            'run "guest-agent-manage db sync"' % (found, migration.head())
        )

    def check_paste(self) -> Any:
        """Look whether nova-api's pipelines have our filter."""
        name = CONF.wsgi.api_paste_config
        path = CONF.find_file(name)
        if path is None:
            return _warning(
                '%s is not on this machine: run this where '
                'nova-api runs' % name
            )
        paste = configparser.RawConfigParser()
        paste.read(path)
        missing = [
            pipeline
            for pipeline in _PIPELINES
            if not _has_filter(paste, pipeline)
        ]
        if not missing:
            return _success()
        return _failure(
            'In %s no filter of %s stands before the application '
            'in: %s' % (path, _FACTORY, ', '.join(missing))
        )

    def check_limit(self) -> Any:
        """Look whether Keystone has the limit that would hold."""
        if not limit_utils.use_unified_limits():
            return _success()
        try:
            return _check_registered()
        except quota.UNREADABLE as error:
            return _failure("Keystone's limits cannot be read: %s" % error)

    _upgrade_checks = (
        ('Tables', check_tables),
        ('Paste filter', check_paste),
        ('Registered limit', check_limit),
    )


def _check_registered() -> Any:
    registered = limit_utils._identity_client().registered_limits()
    if quota.RESOURCE in {limit.resource_name for limit in registered}:
        return _success()
    nobody_s = limit_exc.ProjectOverLimit(
        None, [limit_exc.OverLimitInfo(quota.RESOURCE, 0, 0, 1)]
    )
    if limit_utils.should_enforce(nobody_s):
        return _failure(
            'Keystone has no registered limit of %s: no command '
            'will be accepted' % quota.RESOURCE
        )
    return _warning(
        'Keystone has no registered limit of %s: projects may '
        'have any number of commands' % quota.RESOURCE
    )


def _has_filter(paste: configparser.RawConfigParser, pipeline: str) -> bool:
    ours = {
        section.removeprefix('filter:')
        for section in paste.sections()
        if paste.get(section, 'paste.filter_factory', fallback=None)
        == _FACTORY
    }
    *filters, _ = paste.get(pipeline, 'keystone', fallback='none').split()
    return bool(filters) and filters[-1] in ours


def _success() -> Any:
    return upgradecheck.Result(upgradecheck.Code.SUCCESS)


def _warning(details: str) -> Any:
    return upgradecheck.Result(upgradecheck.Code.WARNING, details)


def _failure(details: str) -> Any:
    return upgradecheck.Result(upgradecheck.Code.FAILURE, details)


def main() -> int:
    upgradecheck.register_cli_options(CONF, Checks())
    config.parse_args(sys.argv, configure_db=False, init_rpc=False)
    session.configure(CONF)
    return int(upgradecheck.run(CONF))
