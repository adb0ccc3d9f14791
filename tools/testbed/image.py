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

"""The guest: Debian's cloud kernel and a file system in memory.

It holds busybox, dash, bash and qemu-ga, unpacked from Debian's packages
without installing them. The build is kept, and repeated only when this file,
the guest's init or a package changes.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib
import shutil
import subprocess
import sys

from oslo_concurrency import lockutils

_INIT = pathlib.Path(__file__).with_name('guest_init')

_PACKAGES = (
    'bash',
    'busybox-static',
    'dash',
    'libc6',
    'libglib2.0-0',
    'libnuma1',
    'libpcre2-8-0',
    'libtinfo6',
    'libudev1',
    'liburing2',
    'qemu-guest-agent',
)

#: For its kernel. What follows "panic" has it do less where QEMU emulates the
#: processor. Not tsc=reliable: measured wrong on a busy machine, it made the
#: clock of a guest ten times too fast, with nothing left to tell.
COMMAND_LINE = (
    'console=ttyS0 quiet panic=1 mitigations=off '
    'cryptomgr.notests random.trust_cpu=on'
)

#: For a guest that is reached over a network too, in comparisons.
_SSH_PACKAGES = (
    # Has script, for terminals of attached commands.
    'bsdutils',
    'dropbear-bin',
    'libcrypt1',
    'libgmp10',
    'libtomcrypt1',
    'libtommath1',
    'openssh-sftp-server',
    'zlib1g',
)

_MODULES = (
    'virtio/virtio_ring.ko',
    'virtio/virtio.ko',
    'virtio/virtio_pci_legacy_dev.ko',
    'virtio/virtio_pci_modern_dev.ko',
    'virtio/virtio_pci.ko',
    'char/virtio_console.ko',
)

_SSH_MODULES = (
    '../net/core/failover.ko',
    'net/net_failover.ko',
    'net/virtio_net.ko',
)

#: What the packages hold and the guest does not need.
_PRUNED = (
    'boot',
    'etc',
    'usr/share',
    'usr/lib/x86_64-linux-gnu/gconv',
    'usr/lib/x86_64-linux-gnu/audit',
    'lib/systemd',
    'lib/udev',
)

_DIRECTORIES = ('dev', 'etc', 'proc', 'root', 'run', 'sys', 'tmp', 'var')

_FILES = {
    'etc/passwd': 'root:x:0:0:root:/root:/bin/sh\n'
    'tenant:x:1000:1000:tenant:/home/tenant:/bin/sh\n',
    'etc/group': 'root:x:0:\ntenant:x:1000:\nguests:x:2000:tenant\n',
    'etc/os-release': 'ID=debian\nNAME="Test guest"\nVERSION_ID=12\n',
}


@dataclasses.dataclass(frozen=True)
class Image:
    """What QEMU boots directly.

    :ivar command_line: arguments of the kernel
    :ivar disk: the root disk that each guest gets a copy of, in qcow2; None if
        the root is in memory
    """

    kernel: pathlib.Path
    initrd: pathlib.Path
    command_line: str = COMMAND_LINE
    disk: pathlib.Path | None = None


def build(cache: pathlib.Path, *, ssh: bool = False) -> Image:
    """Return the guest's image, building it when it is not there yet.

    Whoever else wants one at the same time waits for it.

    :param cache: a directory that is kept between runs
    :param ssh: whether it has a network and an SSH server
    """
    with lockutils.external_lock('guest-image', lock_path=str(cache)):
        return _build(cache, ssh=ssh)


def _build(cache: pathlib.Path, *, ssh: bool) -> Image:
    wanted = (*_PACKAGES, *(_SSH_PACKAGES if ssh else ()))
    packages = _download(
        cache / ('packages-ssh' if ssh else 'packages'), wanted
    )
    directory = cache / f'guest-{_key(packages)}'
    image = Image(directory / 'vmlinuz', directory / 'initrd')
    if image.initrd.exists():
        return image
    root = directory / 'root'
    shutil.rmtree(directory, ignore_errors=True)
    root.mkdir(parents=True)
    for package in packages:
        subprocess.run(['dpkg-deb', '-x', package, root], check=True)
    next((root / 'boot').glob('vmlinuz-*')).rename(image.kernel)
    _furnish(root, (*_MODULES, *(_SSH_MODULES if ssh else ())))
    _pack(root, image.initrd)
    shutil.rmtree(root)
    return image


def _download(
    directory: pathlib.Path, wanted: Sequence[str]
) -> list[pathlib.Path]:
    """Fetch packages, if they are not there, and name their files."""
    done = directory / 'complete'
    if not done.exists():
        print("Fetching the guest's packages ...", flush=True)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            _fetch(directory, wanted)
        except subprocess.CalledProcessError:
            # No lists of packages yet, or such as have grown old.
            subprocess.run(['apt-get', 'update', '-qq'], check=True)
            _fetch(directory, wanted)
        done.touch()
    return sorted(directory.glob('*.deb'))


def _fetch(directory: pathlib.Path, wanted: Sequence[str]) -> None:
    subprocess.run(
        [
            'apt-get',
            'download',
            '-qq',
            '-o',
            'APT::Sandbox::User=root',
            _kernel_package(),
            *wanted,
        ],
        cwd=directory,
        check=True,
    )


def _kernel_package() -> str:
    depends = subprocess.run(
        ['apt-cache', 'depends', 'linux-image-cloud-amd64'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return next(
        line.split()[-1]
        for line in depends.splitlines()
        if 'Depends: linux-image-' in line
    )


def _key(packages: list[pathlib.Path]) -> str:
    inputs = hashlib.sha256()
    for source in (pathlib.Path(__file__), _INIT):
        inputs.update(source.read_bytes())
    for package in packages:
        inputs.update(package.name.encode())
    return inputs.hexdigest()[:12]


def _furnish(root: pathlib.Path, names: Sequence[str]) -> None:
    """Turn the unpacked packages into the guest's root directory.

    :param names: the kernel's modules that it needs
    """
    drivers = next((root / 'lib/modules').glob('*/kernel/drivers'))
    modules = [
        (drivers / name).rename(root / pathlib.Path(name).name)
        for name in names
    ]
    for pruned in ('lib/modules', *_PRUNED):
        shutil.rmtree(root / pruned, ignore_errors=True)
    (root / 'lib/modules').mkdir()
    for module in modules:
        module.rename(root / 'lib/modules' / module.name)
    for directory in _DIRECTORIES:
        (root / directory).mkdir(exist_ok=True)
    (root / 'var/run').symlink_to('/run')
    for name, content in _FILES.items():
        (root / name).write_text(content)
    shutil.copy(_INIT, root / 'init')
    (root / 'init').chmod(0o755)
    _link_applets(root)


def _link_applets(root: pathlib.Path) -> None:
    applets = subprocess.run(
        [root / 'bin/busybox', '--list-full'],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for applet in applets.split():
        link = root / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink() and not link.exists():
            link.symlink_to('/bin/busybox')


def _pack(root: pathlib.Path, initrd: pathlib.Path) -> None:
    """Write the archive that the kernel unpacks, whole or not at all."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob('*'))
    partial = initrd.with_suffix('.partial')
    with partial.open('wb') as archive:
        subprocess.run(
            ['cpio', '--quiet', '-o', '-H', 'newc', '-R', '0:0'],
            input='\n'.join(names).encode(),
            stdout=archive,
            cwd=root,
            check=True,
        )
    partial.rename(initrd)


if __name__ == '__main__':
    build(pathlib.Path(sys.argv[1]))
