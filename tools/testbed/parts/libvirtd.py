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

"""A libvirtd of our own, and QEMU guests with an agent in them."""

import abc
from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import json
import operator
import pathlib
import shlex
import shutil
import subprocess
import uuid
from xml.sax import saxutils

import libvirt
import libvirt_qemu

from tools.testbed import debian
from tools.testbed import image
from tools.testbed import processes

_QEMU_CONF = """\
# There is no virtlogd.
stdio_handler = "file"
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
"""

_LIBVIRTD_CONF = """\
unix_sock_dir = "{sockets}"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
"""

# The directories whose paths are compiled into libvirtd. In a mount
# namespace of its own each is one of ours, so that it and the machine's
# libvirtd know nothing of each other.
_OWN_DIRECTORIES = {
    'etc': '/etc/libvirt',
    'run': '/run/libvirt',
    'lib': '/var/lib/libvirt',
    'cache': '/var/cache/libvirt',
    'log': '/var/log/libvirt',
}

# libvirtd looks up the user that Debian compiled in even where qemu.conf names
# another; only libvirt-daemon-system, which wants systemd, makes that one.
_OWN_ACCOUNTS = {
    'passwd': 'libvirt-qemu:x:64055:64055::/nonexistent:/bin/false\n',
    'group': 'libvirt-qemu:x:64055:\n',
}

_DOMAIN = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <on_reboot>restart</on_reboot>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='{console}' append='on'/></serial>
    {disk}
    {channel}
    <memballoon model='none'/>
  </devices>
  {commandline}
</domain>
"""

_CHANNEL = """\
<channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>"""

_DISK = """\
<disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{path}'/>
      <target dev='vda' bus='virtio'/>
    </disk>"""

# libvirt's own network for a user forwards no port.
_NETWORK = """\
<qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg
      value='user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=ssh,addr=0x1d'/>
  </qemu:commandline>"""


def _silence(_context: None, _error: object) -> None:
    """Every libvirt error is raised too; on stderr it would stand twice."""


libvirt.registerErrorHandler(_silence, None)


@dataclasses.dataclass(frozen=True)
class Ssh:
    """How a guest is reached over a network.

    :ivar port: port of its SSH server on loopback
    :ivar key: public key of root's, of type ssh-ed25519, in base64
    """

    port: int
    key: str


@dataclasses.dataclass(frozen=True)
class BaseGuest(abc.ABC):
    """One QEMU guest, whatever it boots.

    :ivar uuid: the domain's and the server's
    :ivar agent: whether it has the agent's channel
    :ivar memory: MiB
    """

    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    agent: bool = True
    memory: int = 128

    @property
    def name(self) -> str:
        return f'guest-{self.uuid[:8]}'

    @property
    def ssh_port(self) -> int | None:
        """The loopback port of its SSH server; None without a network."""
        return None

    @abc.abstractmethod
    def build(self, cache: pathlib.Path) -> image.Image:
        """Return the image that it boots, building that first if need be.

        :param cache: the directory that images are kept in
        """


@dataclasses.dataclass(frozen=True)
class Guest(BaseGuest):
    """The tiny guest: its file system is in its memory.

    :ivar shell: program behind ``/bin/sh``: a path in the guest, for example
        ``/bin/busybox``, ``/bin/dash`` or ``/bin/bash``
    :ivar blocked: the agent's calls that it refuses
    :ivar ssh: if it has a network
    """

    shell: str = '/bin/busybox'
    blocked: tuple[str, ...] = ()
    ssh: Ssh | None = None

    @property
    def ssh_port(self) -> int | None:
        return self.ssh.port if self.ssh else None

    def build(self, cache: pathlib.Path) -> image.Image:
        booted = image.build(cache, ssh=self.ssh is not None)
        arguments = [
            f'guest_shell={self.shell}',
            f'guest_blocked={",".join(self.blocked)}',
            *([f'guest_ssh_key={self.ssh.key}'] if self.ssh else []),
        ]
        return dataclasses.replace(
            booted, command_line=' '.join([booted.command_line, *arguments])
        )


@dataclasses.dataclass(frozen=True)
class Debian(BaseGuest):
    """The Debian guest: it has systemd, and a disk that outlives a reset.

    :ivar ssh: if it has a network, on which nothing of it is set up
    """

    memory: int = 512
    ssh: Ssh | None = None

    @property
    def ssh_port(self) -> int | None:
        return self.ssh.port if self.ssh else None

    def build(self, cache: pathlib.Path) -> image.Image:
        return debian.build(cache)


#: The guests' classes by the names that ``make`` takes for them.
DISTROS: Mapping[str, type[BaseGuest]] = {'tiny': Guest, 'debian': Debian}


class Libvirtd:
    """A libvirtd that shares nothing with the machine's own.

    :param directory: directory of its files; kept, a second start is quicker.
        Its sockets are in it: the path may be no longer than 80 bytes.
    :param cache: directory of the guests' images
    :param hostname: name that it gives its host
    """

    def __init__(
        self,
        directory: pathlib.Path,
        cache: pathlib.Path,
        hostname: str = 'testbed',
    ) -> None:
        self._directory = directory
        self._cache = cache
        self._hostname = hostname
        self._process: processes.Process | None = None

    @property
    def uri(self) -> str:
        """The URI that a client connects to, virsh for example."""
        socket = self._directory / 'sockets/libvirt-sock'
        return f'qemu:///system?socket={socket}'

    @property
    def process(self) -> processes.Process:
        """The daemon's process, to be paused or killed."""
        if self._process is None:
            raise processes.StartError('libvirtd has not been started')
        return self._process

    def start(self) -> processes.Process:
        """Start the daemon, and wait for its first answer."""
        self._write_configuration()
        self._process = processes.start(
            'libvirtd',
            ['unshare', '--mount', '--uts', 'sh', '-ec', self._script()],
            self._directory / 'libvirtd.log',
        )
        processes.wait_for(self._answers, 30, 'libvirtd', self._process)
        return self._process

    def stop(self) -> None:
        """Destroy the guests, then end the daemon."""
        self.end_guests()
        if self._process is not None:
            self._process.stop()

    def end_guests(self) -> None:
        """Destroy the guests of this daemon, also when it does not run.

        Their disks are removed.
        """
        for pid_file in self._directory.glob('run/qemu/*.pid'):
            _end_qemu(pid_file)
        shutil.rmtree(self._directory / 'disks', ignore_errors=True)

    def boot(self, *guests: BaseGuest) -> None:
        """Start guests; their agents answer some seconds later.

        A guest that has had a disk before has it again.
        """
        with contextlib.closing(self.connect()) as connection:
            for guest in guests:
                connection.createXML(self._xml(guest))

    def wait(self, *guests: BaseGuest, timeout: float = 180) -> None:
        """Wait until the agents of those guests that have one answer.

        :param timeout: seconds, for each
        """
        with contextlib.closing(self.connect()) as connection:
            for guest in filter(operator.attrgetter('agent'), guests):
                domain = connection.lookupByUUIDString(guest.uuid)
                processes.wait_for(
                    functools.partial(_pings, domain),
                    timeout,
                    f'the agent of {guest.name}',
                )

    def domain(self, guest: BaseGuest) -> libvirt.virDomain:
        """Return a guest's domain, to be suspended, reset or destroyed."""
        return self.connect().lookupByUUIDString(guest.uuid)

    def touch(self, guest: BaseGuest, path: str) -> None:
        """Make a file in a guest by its agent alone, when that answers."""
        self.wait(guest)
        libvirt_qemu.qemuAgentCommand(
            self.domain(guest),
            json.dumps(
                {
                    'execute': 'guest-exec',
                    'arguments': {'path': '/bin/touch', 'arg': [path]},
                }
            ),
            5,
            0,
        )

    def migrate(
        self, guest: BaseGuest, to: 'Libvirtd', *, bandwidth: int = 0
    ) -> None:
        """Move a running guest to another daemon.

        This process leads the two through it. By themselves, as Nova wants
        them to, they would need TCP: that is how libvirt tells two hosts.

        :param bandwidth: MiB in a second, 0 for as many as can be
        :raises libvirt.libvirtError: it stays where it is
        """
        with (
            contextlib.closing(self.connect()) as source,
            contextlib.closing(to.connect()) as destination,
        ):
            source.lookupByUUIDString(guest.uuid).migrate3(
                destination,
                {
                    libvirt.VIR_MIGRATE_PARAM_URI: (
                        f'unix://{to._directory}/sockets/migration'
                    ),
                    libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: bandwidth,
                },
                libvirt.VIR_MIGRATE_LIVE,
            )

    def connect(self) -> libvirt.virConnect:
        return libvirt.open(self.uri)

    def console(self, guest: BaseGuest) -> pathlib.Path:
        """Return the file with the guest's console output."""
        return self._directory / 'log' / f'{guest.name}.console'

    def qemu(self, guest: BaseGuest) -> processes.Process:
        """Return the process of a guest's QEMU, to be paused or killed."""
        pid_file = self._directory / f'run/qemu/{guest.name}.pid'
        return processes.Process.of(guest.name, int(pid_file.read_text()))

    def _write_configuration(self) -> None:
        for own in ('sockets', *_OWN_DIRECTORIES):
            (self._directory / own).mkdir(parents=True, exist_ok=True)
        (self._directory / 'etc/qemu.conf').write_text(_QEMU_CONF)
        (self._directory / 'etc/libvirtd.conf').write_text(
            _LIBVIRTD_CONF.format(
                sockets=self._directory / 'sockets',
                host_uuid=uuid.uuid5(
                    uuid.NAMESPACE_URL, self._directory.as_uri()
                ),
            )
        )
        for name, line in _OWN_ACCOUNTS.items():
            (self._directory / name).write_text(
                pathlib.Path('/etc', name).read_text() + line
            )

    def _quoted(self, name: str) -> str:
        return shlex.quote(str(self._directory / name))

    def _script(self) -> str:
        directories = _OWN_DIRECTORIES.items()
        accounts = ((name, f'/etc/{name}') for name in _OWN_ACCOUNTS)
        return '\n'.join(
            [
                f'hostname {self._hostname}',
                *(f'mkdir -p {path}' for _, path in directories),
                *(
                    f'mount --bind {self._quoted(own)} {path}'
                    for own, path in (*directories, *accounts)
                ),
                f'exec libvirtd --pid-file {self._quoted("libvirtd.pid")}',
            ]
        )

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except libvirt.libvirtError:
            return False
        return True

    def _xml(self, guest: BaseGuest) -> str:
        booted = guest.build(self._cache)
        disk = booted.disk and self._overlay(guest, booted.disk)
        values = {
            'name': guest.name,
            'uuid': guest.uuid,
            'kernel': booted.kernel,
            'initrd': booted.initrd,
            'console': self.console(guest),
            'cmdline': booted.command_line,
        }
        return _DOMAIN.format(
            channel=_CHANNEL if guest.agent else '',
            memory=guest.memory,
            disk=_DISK.format(path=saxutils.escape(str(disk))) if disk else '',
            commandline=(
                _NETWORK.format(port=guest.ssh_port) if guest.ssh_port else ''
            ),
            **{
                name: saxutils.escape(str(value))
                for name, value in values.items()
            },
        )

    def _overlay(self, guest: BaseGuest, base: pathlib.Path) -> pathlib.Path:
        """Return a guest's disk: the one that it has had, or a new one.

        :param base: the disk of its image, which stays as it is
        """
        disk = self._directory / 'disks' / f'{guest.name}.qcow2'
        if not disk.exists():
            disk.parent.mkdir(exist_ok=True)
            subprocess.run(
                [
                    'qemu-img',
                    'create',
                    '-q',
                    '-f',
                    'qcow2',
                    '-b',
                    base,
                    '-F',
                    'qcow2',
                    disk,
                ],
                check=True,
            )
        return disk


def _pings(domain: libvirt.virDomain) -> bool:
    try:
        libvirt_qemu.qemuAgentCommand(
            domain, '{"execute": "guest-ping"}', 1, 0
        )
    except libvirt.libvirtError:
        return False
    return True


def _end_qemu(pid_file: pathlib.Path) -> None:
    # Not through libvirtd: that may be dead or paused.
    try:
        qemu = processes.Process.of(pid_file.stem, int(pid_file.read_text()))
    except (processes.StartError, OSError, ValueError):
        return
    command = pathlib.Path(f'/proc/{qemu.pid}/cmdline').read_bytes()
    if f'guest={pid_file.stem},'.encode() in command:
        qemu.kill()
