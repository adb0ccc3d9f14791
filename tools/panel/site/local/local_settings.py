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

"""Settings of the Horizon that the stack has and that tests start.

``openstack_dashboard.settings`` imports them by this name, ``local``.
"""

import os
import pathlib

# Names of Horizon's own settings module would be overwritten.
from openstack_dashboard import defaults as _defaults
from openstack_dashboard.local import enabled as _local_enabled

from guest_agent_ext.dashboard import enabled as _enabled

#: Directories of what is served, and of what this process keeps.
STATIC_ROOT = os.environ['HORIZON_STATIC']
_STATE = pathlib.Path(os.environ.get('HORIZON_STATE', '/nonexistent'))

DEBUG = False
ALLOWED_HOSTS = ['*']
WEBROOT = '/'
COMPRESS_OFFLINE = True
# A test's pages are fetched by one browser only.
SECRET_KEY = os.environ.get('HORIZON_SECRET', 'for compress only')
OPENSTACK_KEYSTONE_URL = os.environ.get('HORIZON_KEYSTONE', 'http://[::1]/v3')
OPENSTACK_KEYSTONE_MULTIDOMAIN_SUPPORT = False
SESSION_ENGINE = 'django.contrib.sessions.backends.file'
SESSION_FILE_PATH = str(_STATE)
CACHES = {
    'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}
}
TIME_ZONE = 'UTC'
# A copy of Nova's, if there is one: without it Nova's defaults hold.
POLICY_FILES = {
    **_defaults.POLICY_FILES,
    'compute': str(_STATE / 'nova_policy.yaml'),
}

# What an operator may have on: no secret may be in it.
OPERATION_LOG_ENABLED = True
LOGGING = {
    'version': 1,
    'disable_existing_loggers': False,
    'handlers': {
        'stderr': {'class': 'logging.StreamHandler', 'level': 'DEBUG'}
    },
    'root': {'handlers': ['stderr'], 'level': 'DEBUG'},
}

# As the files are copied to that directory in a cloud.
_local_enabled.__path__.extend(_enabled.__path__)
