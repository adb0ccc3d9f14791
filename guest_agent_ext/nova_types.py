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

"""What is used of Nova's objects, for which Nova publishes no types."""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Protocol

#: The environment of a WSGI request.
Environ = dict[str, Any]


class CellMapping(Protocol):
    """What is used of nova.objects.CellMapping: where a cell is.

    :ivar uuid: uuid of the cell
    :ivar transport_url: URL of the cell's message queue
    :ivar database_connection: URL of the cell's database
    """

    uuid: str
    transport_url: str
    database_connection: str

    def is_cell0(self) -> bool:
        """Return whether the cell is the one of servers without a host."""


class RequestContext(Protocol):
    """What is used of nova.context.RequestContext: who sent a request.

    :ivar is_admin: True if Nova's policy takes the user for an administrator
    """

    user_id: str | None
    project_id: str | None
    request_id: str | None
    is_admin: bool

    def can(
        self, action: str, target: Mapping[str, object], fatal: bool = True
    ) -> object:
        """Return what the policy rule says of the target.

        :raises nova.exception.PolicyNotAuthorized: if ``fatal``, the rule does
            not allow the action
        """

    def update_store(self) -> None:
        """Make the log lines of this thread name the request."""


class InstanceMapping(Protocol):
    """What is used of nova.objects.InstanceMapping: where a server is.

    :ivar instance_uuid: uuid of the server
    :ivar project_id: project of the server
    :ivar cell_mapping: mapping of the server's cell, None while the server is
        not scheduled
    """

    instance_uuid: str
    project_id: str
    cell_mapping: CellMapping | None


class Instance(Protocol):
    """What is used of nova.objects.Instance: a server in its cell.

    :ivar host: name of the compute host
    :ivar task_state: one of nova.compute.task_states, None while nothing is
        being done to the server
    """

    uuid: str
    host: str | None
    vm_state: str
    task_state: str | None
    power_state: int | None
    locked: bool
    system_metadata: Mapping[str, str]


class Tag(Protocol):
    """What is used of nova.objects.Tag."""

    tag: str


class ListedInstance(Protocol):
    """What is used of nova.objects.Instance in a list."""

    uuid: str
    metadata: Mapping[str, str]
    tags: Iterable[Tag]


class Query(Protocol):
    """What is used of the parameters of a query."""

    def __contains__(self, name: object) -> bool:
        """Return whether a parameter is given."""

    def __getitem__(self, name: str) -> str:
        """Return the last value of a parameter that is given."""

    def get(self, name: str, default: str = ...) -> str | None:
        """Return the last value of a parameter."""

    def getall(self, name: str) -> list[str]:
        """Return all values of a parameter."""

    def dict_of_lists(self) -> dict[str, list[str]]:
        """Return all values of all parameters."""


class Request(Protocol):
    """What is used of a request as Nova's WSGI layer hands it over.

    :ivar GET: parameters of the query
    """

    environ: Environ
    headers: Mapping[str, str]
    content_length: int | None
    GET: Query

    def get_content_type(self) -> str | None:
        """Return the type of the body, None without a body.

        :raises nova.exception.InvalidContentType: Nova reads no such type
        """
