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


"""Playbooks through the extension, and by ssh into the same guests.

ssh has pipelining and ``ControlPersist``, and its servers are dropbear: what
Ansible's users have at best. Each way keeps its session between the rounds.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import clouds
from benchmarks import measure
from benchmarks import ssh
from tools.testbed import client as http
from tools.testbed import cloud as testbed_cloud
from tools.testbed.parts import libvirtd

GUESTS, ROUNDS = 8, 3

_PLAYBOOKS = pathlib.Path(__file__).with_name('playbooks')
_TASKS, _LINES = '20 tasks', f'5 tasks, {GUESTS} forks'

#: Gives a Debian guest its address in QEMU's network, and an SSH server.
_SETUP = """\
set -e
# The client that a package wants is for nobody here.
dpkg --install --force-depends /root/*.deb
cat >/etc/systemd/network/ssh.network <<END
[Match]
Name=en*
[Network]
Address=10.0.2.15/24
END
systemctl restart systemd-networkd
mkdir -p -m 700 /root/.ssh /etc/dropbear
echo "ssh-ed25519 $KEY" >/root/.ssh/authorized_keys
dropbear -R </dev/null >/dev/null 2>&1
"""


def run() -> measure.Report:
    report = measure.Report('Playbooks')
    with clouds.running() as cloud, tempfile.TemporaryDirectory() as name:
        ansible = _Ansible(pathlib.Path(name), cloud)
        real = ansible.add(lambda way: libvirtd.Debian(ssh=way))
        _serve_ssh(real)
        report.series = ansible.both_ways('tasks', _TASKS, [real], ROUNDS)
        report.facts = {
            f'{_TASKS}, {what}': number
            for what, number in ansible.requests('tasks', real).items()
        }
        cloud.hypervisor.domain(real.guest).destroy()
        tiny = [
            ansible.add(lambda way: libvirtd.Guest(ssh=way))
            for _ in range(GUESTS)
        ]
        for host in tiny:
            host.way_in.wait()
        report.series += ansible.both_ways('lines', _LINES, tiny, 2 * ROUNDS)
    report.goals = [
        measure.Goal(f'{what} by ssh', report.ratio(what, f'{what}, ssh'), 1.5)
        for what in (_TASKS, _LINES)
    ]
    return report


@dataclasses.dataclass(frozen=True)
class _Host:
    """A server, and both ways into it.

    :ivar name: name in the inventory
    """

    name: str
    guest: libvirtd.BaseGuest
    client: http.Client
    way_in: ssh.Ssh


class _Ansible:
    """Runs playbooks.

    :param directory: directory for Ansible's own files, with a short path
    :param cloud: cloud of the servers
    """

    def __init__(
        self, directory: pathlib.Path, cloud: testbed_cloud.Cloud
    ) -> None:
        self._directory = directory
        self._cloud = cloud
        self._count = 0
        client = cloud.client()
        # What this machine has in /etc is not for benchmarks.
        configuration = directory / 'ansible.cfg'
        configuration.touch()
        self._env = {
            **os.environ,
            'ANSIBLE_COLLECTIONS_PATH': str(clouds.ROOT / 'client'),
            'ANSIBLE_CONFIG': str(configuration),
            'ANSIBLE_HOME': str(directory),
            'ANSIBLE_SSH_CONTROL_PATH_DIR': str(directory / 'cp'),
            'ANSIBLE_PIPELINING': '1',
            'LC_ALL': 'C.UTF-8',
            'OS_AUTH_TYPE': 'admin_token',
            'OS_TOKEN': client.token,
            'OS_ENDPOINT': cloud.nova.url,
        }

    def add(self, make: Callable[[libvirtd.Ssh], libvirtd.BaseGuest]) -> _Host:
        """Boot a guest.

        :param make: function that returns one that is reached by SSH too
        """
        self._count += 1
        name = f'host-{self._count}'
        directory = self._directory / name
        directory.mkdir()
        way_in = ssh.Ssh(directory)
        guest = make(way_in.guest)
        return _Host(name, guest, self._cloud.add(guest), way_in)

    def both_ways(
        self, playbook: str, what: str, hosts: Sequence[_Host], rounds: int
    ) -> list[measure.Series]:
        """Measure a playbook in turns.

        :param playbook: name of its file
        :param what: name of the series
        """
        ours, by_ssh = self._inventories(hosts)
        return measure.side_by_side(
            {
                what: lambda: self._play(playbook, ours),
                f'{what}, ssh': lambda: self._play(playbook, by_ssh),
            },
            rounds,
        )

    def requests(self, playbook: str, host: _Host) -> dict[str, int]:
        """Return how many requests a playbook makes, by method and call."""
        log = pathlib.Path(str(self._cloud.api.log))
        before = log.stat().st_size
        self._play(playbook, self._inventories([host])[0])
        with log.open(errors='replace') as lines:
            lines.seek(before)
            text = lines.read()
        found: dict[str, int] = {}
        for method, call in re.findall(
            rf'"(GET|POST) /v2\.1/servers/{host.guest.uuid}/guest-agent/'
            r'([a-z-]+)',
            text,
        ):
            name = f'{method} {call}'
            found[name] = found.get(name, 0) + 1
        return found

    def _play(self, playbook: str, inventory: pathlib.Path) -> None:
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'ansible', 'playbook'),
                *('--forks', str(GUESTS), '-i', str(inventory)),
                str(_PLAYBOOKS / f'{playbook}.yml'),
            ],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
        if done.returncode:
            raise RuntimeError(done.stdout)

    def _inventories(
        self, hosts: Sequence[_Host]
    ) -> tuple[pathlib.Path, pathlib.Path]:
        """Write what says how hosts are reached: by us, and by ssh."""
        return (
            self._write(
                'ours',
                {'ansible_connection': 'guest_agent_ext.guest_agent.server'},
                {
                    host.name: {'ansible_host': host.guest.uuid}
                    for host in hosts
                },
            ),
            self._write(
                'ssh',
                {
                    'ansible_connection': 'ansible.builtin.ssh',
                    'ansible_host': '127.0.0.1',
                    'ansible_user': 'root',
                    'ansible_ssh_common_args': ' '.join(ssh.OPTIONS),
                },
                {
                    host.name: {
                        'ansible_port': host.guest.ssh_port,
                        'ansible_ssh_private_key_file': str(host.way_in.key),
                    }
                    for host in hosts
                },
            ),
        )

    def _write(
        self,
        name: str,
        values: Mapping[str, Any],
        hosts: Mapping[str, Mapping[str, Any]],
    ) -> pathlib.Path:
        path = self._directory / f'{name}.json'
        path.write_text(json.dumps({'all': {'vars': values, 'hosts': hosts}}))
        return path


def _serve_ssh(host: _Host) -> None:
    """Install an SSH server into a Debian guest, and start it."""
    for package in ssh.server_packages(clouds.ROOT / '.cache'):
        host.client.put_file(f'/root/{package.name}', package.read_bytes())
    done = host.client.sh(_SETUP, env={'KEY': host.way_in.guest.key})
    assert done['result'] and done['result']['exitcode'] == 0, done
    host.way_in.wait()


if __name__ == '__main__':
    print(run().as_text())
