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

"""The Debian guest: Debian 12 as it is installed, on a disk.

systemd, journald, udev and qemu-guest-agent.service are Debian's own. The
build is kept, and repeated only when this file or ``debian_setup`` changes.
"""

import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

from oslo_concurrency import lockutils

from tools.testbed import image
from tools.testbed import processes

_SETUP = pathlib.Path(__file__).with_name('debian_setup')

_SUITE = 'bookworm'

#: Beside the essential ones and apt. bsdutils has script, psmisc killall,
#: busybox vi.
_PACKAGES = (
    'bsdutils',
    'busybox',
    'dbus',
    'kmod',
    'libpam-systemd',
    'linux-image-cloud-amd64',
    'netcat-openbsd',
    'openssh-server',
    'procps',
    'psmisc',
    'python3',
    'qemu-guest-agent',
    'rsync',
    'systemd-sysv',
    'udev',
)

#: Bytes: full soon, and no more than the root disk of a small flavor.
_SIZE = 1024**3

COMMAND_LINE = f'{image.COMMAND_LINE} root=/dev/vda rootfstype=ext4 rw'

#: What is there before any package is: dpkg does not sync, and the initrd is
#: made once, with these modules only.
_FILES = {
    'etc/dpkg/dpkg.cfg.d/testbed': 'force-unsafe-io\n',
    'etc/initramfs-tools/conf.d/testbed': 'MODULES=list\n',
    'usr/share/initramfs-tools/modules.d/testbed': (
        'virtio_pci\nvirtio_blk\next4\n'
    ),
    'etc/fstab': '/dev/vda / ext4 errors=remount-ro 0 0\n',
    'etc/hostname': 'debian\n',
}

#: Nothing that is mounted or started for the build outlives it.
_CONTAINED = (
    'setpriv',
    '--pdeathsig',
    'KILL',
    'unshare',
    '--mount',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
)


def build(cache: pathlib.Path) -> image.Image:
    """Return the Debian guest's image, building it when it is not there yet.

    Whoever else wants one at the same time waits for it.

    :param cache: a directory that is kept between runs
    :raises: processes.StartError
    """
    directory = cache / f'debian-{_key()}'
    with lockutils.external_lock('debian-image', lock_path=str(cache)):
        if not directory.exists():
            print('Installing Debian for a guest ...', flush=True)
            partial = cache / 'debian.partial'
            # Of one that was killed.
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                _build(partial, cache / 'debian.log')
                for stale in cache.glob('debian-????????????'):
                    shutil.rmtree(stale)
                partial.rename(directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return image.Image(
        directory / 'vmlinuz',
        directory / 'initrd',
        COMMAND_LINE,
        directory / 'disk.qcow2',
    )


def _key() -> str:
    inputs = hashlib.sha256()
    for source in (pathlib.Path(__file__), _SETUP):
        inputs.update(source.read_bytes())
    return inputs.hexdigest()[:12]


def _build(directory: pathlib.Path, log: pathlib.Path) -> None:
    """Make the files of the image in a directory.

    :param log: the file for the output of the programs that do so
    """
    root, raw = directory / 'root', directory / 'disk.raw'
    for name, content in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    mirror, proxies = _mirror(), _proxies()
    with log.open('wb') as output:

        def run(*argv: str | pathlib.Path) -> None:
            ended = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **proxies},
            )
            if ended.returncode:
                raise processes.StartError(
                    f'Debian was not installed, see {log}'
                )

        run(
            *_CONTAINED,
            'debootstrap',
            '--variant=minbase',
            f'--include={",".join(_PACKAGES)}',
            _SUITE,
            root,
            mirror,
        )
        shutil.copy(_SETUP, root / 'setup')
        run(*_CONTAINED, 'chroot', root, 'sh', '/setup')
        (root / 'setup').unlink()
        for name in ('vmlinuz', 'initrd'):
            next((root / 'boot').glob(f'{name}*-*')).rename(directory / name)
        with raw.open('wb') as disk:
            disk.truncate(_SIZE)
        run('mkfs.ext4', '-q', '-L', 'root', '-d', root, raw)
        run(
            'qemu-img', 'convert', '-O', 'qcow2', raw, directory / 'disk.qcow2'
        )
    raw.unlink()
    shutil.rmtree(root)


def _mirror() -> str:
    """Return where this machine's own packages come from."""
    for refresh in (False, True):
        if refresh:
            # No lists of packages yet.
            subprocess.run(['apt-get', 'update', '-qq'], check=True)
        mirrors = subprocess.run(
            [
                'apt-get',
                'indextargets',
                '--format',
                '$(REPO_URI)',
                'Created-By: Packages',
                f'Codename: {_SUITE}',
                'Component: main',
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        if mirrors:
            return mirrors[0]
    raise processes.StartError(f'apt knows no mirror of {_SUITE}')


def _proxies() -> dict[str, str]:
    """Return the variables that name apt's proxies to other programs."""
    assignments = subprocess.run(
        [
            'apt-config',
            'shell',
            'http_proxy',
            'Acquire::http::Proxy',
            'https_proxy',
            'Acquire::https::Proxy',
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return dict(
        assignment.split('=', 1) for assignment in shlex.split(assignments)
    )


if __name__ == '__main__':
    build(pathlib.Path(sys.argv[1]))
