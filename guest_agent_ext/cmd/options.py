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

"""The options of the programs, from their command lines and nova.conf."""

import sys

from nova import config

from guest_agent_ext import version


def parse(**arguments: bool) -> None:
    """Read the options, as Nova's programs do.

    :param arguments: further arguments of nova.config.parse_args()
    :raises SystemExit: the command line asks for the version, for help, or is
        wrong
    """
    if '--version' in sys.argv[1:]:
        # Nova has oslo.config print the version of Nova.
        sys.stdout.write(version.version_string() + '\n')
        sys.exit(0)
    config.parse_args(sys.argv, **arguments)
