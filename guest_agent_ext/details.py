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

"""The details of a guest that its agent tells: names, shapes and bounds.

One table says which call answers each part and what its answer looks like.
The answer of a guest is read by it, and the schema of the API made from it.
Names are the agent's, with ``_`` for ``-``.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
import math
import time
from typing import Any
from typing import Protocol
from typing import TypeAlias

from guest_agent_ext import untrusted

#: A value of JSON.
Value: TypeAlias = Any

#: Maximum characters of a text, values of a list, and bytes of JSON in one
#: part: a guest's root may say anything. The rest of a list is left out.
MAX_TEXT, MAX_ITEMS, MAX_BYTES = 255, 256, 64 * 1024
#: Maximum characters of an ssh key.
MAX_KEY = 16384
#: Maximum magnitude of a number that is no integer.
MAX_NUMBER = 1e15


class Kind(Protocol):
    """What a value may be."""

    def read(self, value: Value) -> Value:
        """Return what is believed of a guest's value.

        :raises ValueError: the value is of another kind; depending on its
            type, another of untrusted.IMPROPER is raised
        """

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of what read() returns."""


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A value without parts.

    :ivar type: name of the type in JSON Schema
    :ivar reader: function that checks a value and bounds it
    """

    type: str
    reader: Callable[[Value], Value]

    def read(self, value: Value) -> Value:
        return self.reader(value)

    def schema(self) -> dict[str, Any]:
        return {'type': self.type}


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of an object.

    :ivar kind: what its value may be
    :ivar description: words for the api-ref
    :ivar is_required: whether every agent tells it
    """

    kind: Kind
    description: str
    is_required: bool = False


@dataclasses.dataclass(frozen=True)
class Object:
    """An object; fields that are not listed are left out.

    :ivar fields: fields by their names, with ``_``
    """

    fields: Mapping[str, Field]

    def read(self, value: Value) -> Value:
        if not isinstance(value, dict):
            raise TypeError
        found = {}
        for name, field in self.fields.items():
            told = value.get(name.replace('_', '-'))
            if told is not None:
                found[name] = field.kind.read(told)
            elif field.is_required:
                raise KeyError
        return found

    def schema(self) -> dict[str, Any]:
        return {
            'type': 'object',
            'properties': {
                name: dict(field.kind.schema(), description=field.description)
                for name, field in self.fields.items()
            },
            'required': [
                name
                for name, field in self.fields.items()
                if field.is_required
            ],
            'additionalProperties': False,
        }


@dataclasses.dataclass(frozen=True)
class Many:
    """A list; what is beyond its bounds is left out."""

    item: Kind

    def read(self, value: Value) -> Value:
        if not isinstance(value, list):
            raise TypeError
        found: list[Value] = []
        size = 0
        for told in value[:MAX_ITEMS]:
            item = self.item.read(told)
            size += len(json.dumps(item))
            if size > MAX_BYTES:
                break
            found.append(item)
        return found

    def schema(self) -> dict[str, Any]:
        return {'type': 'array', 'items': self.item.schema()}


def _text(value: Value, length: int = MAX_TEXT) -> str:
    if not isinstance(value, str):
        raise TypeError
    return untrusted.text(value, length)


def _number(value: Value) -> float:
    number = float(value)
    if math.isnan(number):
        raise ValueError
    return min(max(number, -MAX_NUMBER), MAX_NUMBER)


def _flag(value: Value) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


TEXT = Scalar('string', _text)
KEY = Scalar('string', lambda value: _text(value, MAX_KEY))
INTEGER = Scalar('integer', untrusted.integer)
COUNT = Scalar('integer', untrusted.natural)
NUMBER = Scalar('number', _number)
FLAG = Scalar('boolean', _flag)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the details.

    :ivar call: name of the agent's call that answers it
    :ivar kind: what is shown
    :ivar description: words for the api-ref
    :ivar pick: function that takes what is shown from the call's answer
    """

    call: str
    kind: Kind
    description: str
    pick: Callable[[Value], Value] = lambda answer: answer

    def read(self, answer: Value) -> Value:
        """Return what is believed of an answer; see Kind.read()."""
        return self.kind.read(self.pick(answer))


def _clock(answer: Value) -> Value:
    """Compare a guest's clock with that of its host.

    :param answer: guest's time in nanoseconds since 1970
    """
    nanoseconds = untrusted.integer(answer)
    return {
        'nanoseconds': nanoseconds,
        'offset': round(nanoseconds / 1e9 - time.time(), 3),
    }


_OS = Object(
    {
        'id': Field(TEXT, 'The id of the system; mswindows for Windows.'),
        'name': Field(TEXT, 'The name of the system.'),
        'pretty_name': Field(TEXT, 'The name and version of the system.'),
        'version': Field(TEXT, 'The version of the system.'),
        'version_id': Field(TEXT, 'The id of the version.'),
        'variant': Field(TEXT, 'The variant of the system.'),
        'variant_id': Field(TEXT, 'The id of the variant.'),
        'machine': Field(TEXT, 'The architecture.'),
        'kernel_release': Field(TEXT, 'The release of the kernel.'),
        'kernel_version': Field(TEXT, 'The version of the kernel.'),
    }
)

_USER = Object(
    {
        'user': Field(TEXT, 'The name of the user.', True),
        'domain': Field(TEXT, 'The domain of the user, on Windows.'),
        'login_time': Field(
            NUMBER, 'The time of the login, in seconds since 1970.', True
        ),
    }
)

_ADDRESS = Object(
    {
        'ip_address': Field(TEXT, 'The address.', True),
        'ip_address_type': Field(TEXT, 'ipv4 or ipv6.', True),
        'prefix': Field(COUNT, 'The length of the prefix, in bits.', True),
    }
)

_STATISTICS = Object(
    {
        f'{way}_{what}': Field(COUNT, f'The {words}, {name}.')
        for way, name in (('rx', 'received'), ('tx', 'sent'))
        for what, words in (
            ('bytes', 'number of bytes'),
            ('packets', 'number of packets'),
            ('errs', 'number of errors'),
            ('dropped', 'number of packets that were dropped'),
        )
    }
)

_INTERFACE = Object(
    {
        'name': Field(TEXT, 'The name of the interface.', True),
        'hardware_address': Field(TEXT, 'The MAC address.'),
        'ip_addresses': Field(Many(_ADDRESS), 'The IP addresses.'),
        'statistics': Field(_STATISTICS, 'The counters of the interface.'),
    }
)

_CONTROLLER = Object(
    {
        name: Field(INTEGER, f'The {name} of the controller.')
        for name in ('domain', 'bus', 'slot', 'function')
    }
)

_DISK_ADDRESS = Object(
    {
        'pci_controller': Field(_CONTROLLER, 'The PCI address.'),
        'bus_type': Field(TEXT, 'The type of the bus, such as virtio.'),
        'bus': Field(INTEGER, 'The number of the bus.'),
        'target': Field(INTEGER, 'The number of the target.'),
        'unit': Field(INTEGER, 'The number of the unit.'),
        'serial': Field(
            TEXT,
            'The serial number; for a volume of Cinder the beginning of its '
            'uuid.',
        ),
        'dev': Field(TEXT, 'The device.'),
    }
)

_FILESYSTEM = Object(
    {
        'name': Field(TEXT, 'The name of the device.', True),
        'mountpoint': Field(TEXT, 'The path of the mount point.', True),
        'type': Field(TEXT, 'The type of the file system.', True),
        'used_bytes': Field(COUNT, 'The number of bytes in use.'),
        'total_bytes': Field(
            COUNT, 'The number of bytes that unprivileged users can fill.'
        ),
        'total_bytes_privileged': Field(COUNT, 'The number of all bytes.'),
        'disk': Field(Many(_DISK_ADDRESS), 'The disks that it is on.'),
    }
)

_DISK = Object(
    {
        'name': Field(TEXT, 'The device.', True),
        'partition': Field(FLAG, 'Whether it is a partition.', True),
        'dependencies': Field(Many(TEXT), 'The devices that it is a part of.'),
        'address': Field(_DISK_ADDRESS, 'The address of the disk.'),
        'alias': Field(TEXT, 'Another name, of a mapped device.'),
    }
)

_VCPU = Object(
    {
        'logical_id': Field(COUNT, 'The number of the processor.', True),
        'online': Field(FLAG, 'Whether the guest uses it.', True),
        'can_offline': Field(FLAG, 'Whether the guest can put it offline.'),
    }
)

#: The part that is told only if a request names a user.
SSH_KEYS = 'ssh_keys'

#: The parts by their names, in the order in which they are asked for.
PARTS: Mapping[str, Part] = {
    'os': Part('guest-get-osinfo', _OS, 'The operating system.'),
    'host_name': Part(
        'guest-get-host-name',
        TEXT,
        'The host name.',
        lambda answer: answer['host-name'],
    ),
    'timezone': Part(
        'guest-get-timezone',
        Object(
            {
                'zone': Field(TEXT, 'The name of the time zone.'),
                'offset': Field(
                    INTEGER, 'The offset from UTC in seconds.', True
                ),
            }
        ),
        'The time zone.',
    ),
    'time': Part(
        'guest-get-time',
        Object(
            {
                'nanoseconds': Field(
                    INTEGER, 'The time in nanoseconds since 1970.', True
                ),
                'offset': Field(
                    NUMBER,
                    'The seconds by which the clock is ahead of that of the '
                    'host, exact to the duration of an agent call.',
                    True,
                ),
            }
        ),
        'The clock.',
        _clock,
    ),
    'users': Part(
        'guest-get-users', Many(_USER), 'The users who are logged in.'
    ),
    'interfaces': Part(
        'guest-network-get-interfaces',
        Many(_INTERFACE),
        'The network interfaces.',
    ),
    'filesystems': Part(
        'guest-get-fsinfo', Many(_FILESYSTEM), 'The mounted file systems.'
    ),
    'disks': Part('guest-get-disks', Many(_DISK), 'The disks.'),
    'vcpus': Part('guest-get-vcpus', Many(_VCPU), 'The processors.'),
    SSH_KEYS: Part(
        'guest-ssh-get-authorized-keys',
        Many(KEY),
        'The public keys that the user whom the request names may log in '
        'with.',
        lambda answer: answer['keys'],
    ),
}
