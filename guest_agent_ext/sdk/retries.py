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

"""Sends requests again whose answer was lost."""

from collections.abc import Callable
import time
from typing import TypeVar

from keystoneauth1 import exceptions as auth_exceptions
from openstack import exceptions

#: Seconds between two tries.
GAP = 1.0
#: Maximum number of tries for what a user waits to begin, and for what is
#: under way. A service that is restarted is back by then.
FEW, MANY = 3, 60

#: Answers of a service, or of a proxy before it, that is away for a while.
_AWAY = (502, 503, 504)

_Answer = TypeVar('_Answer')


def repeated(call: Callable[[], _Answer], tries: int = MANY) -> _Answer:
    """Make a call, and again while no answer comes.

    The call must be safe to repeat.

    :param tries: maximum number of calls
    :raises openstack.exceptions.HttpException: the service refused, or was
        away for all of the tries
    :raises keystoneauth1.exceptions.ConnectionError: no connection in all of
        the tries
    """
    for left in reversed(range(tries)):
        try:
            return call()
        except exceptions.HttpException as error:
            if not left or error.status_code not in _AWAY:
                raise
        except (auth_exceptions.ConnectionError, OSError):
            if not left:
                raise
        time.sleep(GAP)
    raise AssertionError('unreachable: there is at least one try')
