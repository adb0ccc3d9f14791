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


"""How the application of guest-agent-api is made.

Nova's own way to make an application registers a service in the database, and
changes between releases.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import os
import pathlib

from nova import config
from nova import objects
from nova import service
from oslo_log import log as logging
from paste import deploy

from guest_agent_ext import conf

CONF = conf.CONF

NAME = 'guest-agent-api'
#: The application's name in the paste pipeline.
PIPELINE = 'guest_agent_api'
DIRECTORY = '/etc/nova'
FILES = 'guest-agent-api-paste.ini;nova.conf'

Application = Callable[..., Iterable[bytes]]


def files(environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the paths of the paste pipeline and of the files of options.

    They are found as nova-api finds its own: ``OS_NOVA_CONFIG_DIR`` names the
    directory, ``OS_NOVA_CONFIG_FILES`` the files in there, the pipeline first,
    with a ``;`` between them.

    :param environment: environment variables
    """
    directory = environment.get('OS_NOVA_CONFIG_DIR', '').strip() or DIRECTORY
    names = environment.get('OS_NOVA_CONFIG_FILES', '').strip() or FILES
    pipeline, *options = [
        str(pathlib.Path(directory, name.strip()).absolute())
        for name in names.split(';')
        if name.strip()
    ]
    return pipeline, options


def load() -> Application:
    """Read the options and return the application.

    :raises SystemExit: the options cannot be read
    :raises LookupError: the pipeline has no such application
    :raises OSError: there is no pipeline
    """
    pipeline, options = files(os.environ)
    # The command line is the server's: gunicorn leaves its own in sys.argv.
    config.parse_args([NAME], default_config_files=options)
    logging.setup(CONF, 'guest_agent_ext')
    objects.register_all()
    service.setup_profiler(NAME, CONF.host)
    application: Application = deploy.loadapp(
        f'config:{pipeline}', name=PIPELINE
    )
    return application
