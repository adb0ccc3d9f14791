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

"""What nova-api and the conductor ask of guest-agent-compute.

Version history of the API:

    * 1.0 - Initial version: work, agent_status, read_output.
"""

from typing import Any
from typing import TypedDict

import oslo_messaging

TOPIC = 'guest_agent_compute'
VERSION = '1.0'

#: Seconds that a call waits for its answer.
TIMEOUT = 15


class AgentStatus(TypedDict):
    """What is known of a guest's agent."""

    #: Why no command can be run there, in words for the tenant; None if one
    #: can.
    reason: str | None
    version: str | None
    os: str | None
    supported_commands: list[str] | None
    #: launcher.Execution
    execution: str | None


class Output(TypedDict):
    """Some of what a command has written."""

    #: base64
    data: str
    #: Why it cannot be read, in words for the tenant; None if it was.
    reason: str | None


def unavailable(reason: str | None) -> AgentStatus:
    """Return the status of an agent of which no more is known."""
    return {'reason': reason, 'version': None, 'os': None,
            'supported_commands': None, 'execution': None}


class ComputeAPI:
    """Client of the compute services of one cell.

    :param transport: oslo.messaging transport of the cell
    """

    def __init__(self, transport: Any) -> None:
        # Nothing is tried again here: a call that waits for a broker to come
        # back would wait for ever.
        self._client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic=TOPIC, version=VERSION),
            retry=0)

    def work(self, host: str) -> None:
        """Ring the doorbell: tell a host that it has work.

        It carries nothing: the host asks its conductor what there is.

        :raises oslo_messaging.MessagingException: the broker did not take it
        """
        self._client.prepare(server=host).cast({}, 'work')

    def agent_status(self, host: str, instance_uuid: str) -> AgentStatus:
        """Ask for the state of a guest's agent.

        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: AgentStatus = self._call(
            host, 'agent_status', instance_uuid=instance_uuid)
        return answer

    def read_output(self, host: str, instance_uuid: str, uuid: str,
                    stream: str, offset: int) -> Output:
        """Ask for what a running command has written.

        :param stream: ``out`` or ``err``
        :param offset: bytes to leave out
        :raises oslo_messaging.MessagingException: the host did not answer
        """
        answer: Output = self._call(
            host, 'read_output', instance_uuid=instance_uuid, uuid=uuid,
            stream=stream, offset=offset)
        return answer

    def _call(self, host: str, method: str, **arguments: Any) -> Any:
        client = self._client.prepare(server=host, timeout=TIMEOUT)
        return client.call({}, method, **arguments)
