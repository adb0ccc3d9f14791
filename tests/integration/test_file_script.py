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


"""The script for files under the shells and the tools of this machine.

Those are GNU's, and the guest of test_files.py has busybox's. The agent is
played as in test_launcher.py.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import hashlib
import os
import pathlib
import shutil
import stat
import subprocess
import time
import uuid

import pytest

from guest_agent_ext import exception
from guest_agent_ext.guest import files
from guest_agent_ext.guest.launchers import posix
from tests.integration import test_launcher

OLD, NEW = b'old content', b'new content'


@pytest.fixture(params=test_launcher.SHELLS)
def guest(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[files.Files]:
    with test_launcher.shell_named_sh(request.param) as shell:
        yield files.Files(
            posix.PosixLauncher(
                test_launcher.HostAgent(),
                str(tmp_path / 'run'),
                shell=str(shell),
            )
        )


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """A path in a directory with nothing else in it."""
    (tmp_path / 'a dir').mkdir()
    return tmp_path / 'a dir' / 'file'


def create(
    guest: files.Files,
    path: pathlib.Path,
    mode: str | None = None,
    append: bool = False,
    owner: str | None = None,
    group: str | None = None,
) -> files.Target:
    return guest.create(
        str(path),
        str(uuid.uuid4()),
        mode=mode,
        append=append,
        owner=owner,
        group=group,
    )


def fill(target: files.Target, data: bytes = NEW) -> files.Target:
    pathlib.Path(target.temporary or target.path).write_bytes(data)
    return target


def commit(
    guest: files.Files, target: files.Target, data: bytes = NEW
) -> None:
    # Of a file that was there before the whole is not known.
    digest = hashlib.sha256(data).hexdigest() if target.temporary else ''
    pid = guest.start_commit(target, len(data), digest)
    while not guest.poll_commit(target, pid):
        time.sleep(0.01)


def listing(path: pathlib.Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def test_what_can_be_read(guest: files.Files, path: pathlib.Path) -> None:
    path.touch()
    guest.check_readable(str(path))
    link = path.with_name('link')
    link.symlink_to('file')
    guest.check_readable(str(link))


@pytest.mark.parametrize(
    ('make', 'error'),
    [
        (lambda path: None, exception.FileMissing),
        (lambda path: path.symlink_to('nowhere'), exception.FileMissing),
        (lambda path: path.symlink_to('file'), exception.FileMissing),
        (pathlib.Path.mkdir, exception.FileUnsuitable),
        (os.mkfifo, exception.FileUnsuitable),
        (lambda path: path.symlink_to('/dev/null'), exception.FileUnsuitable),
    ],
)
def test_what_cannot_be_read(
    guest: files.Files,
    path: pathlib.Path,
    make: Callable[[pathlib.Path], object],
    error: type[exception.FileError],
) -> None:
    make(path)
    with pytest.raises(error) as caught:
        guest.check_readable(str(path))
    assert str(path) in str(caught.value)


def test_new_file_takes_its_place(
    guest: files.Files, path: pathlib.Path
) -> None:
    target = create(guest, path)
    assert target.temporary is not None
    made = pathlib.Path(target.temporary)
    assert made.parent == path.parent
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert not path.exists()
    commit(guest, fill(target))
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert listing(path) == ['file']


def test_file_without_an_inode_is_not_taken_for_another(
    guest: files.Files, path: pathlib.Path
) -> None:
    """Nothing is like nothing: the new file and one that is not there."""
    target = dataclasses.replace(create(guest, path), inode='')
    assert target.temporary is not None
    pathlib.Path(target.temporary).unlink()
    with pytest.raises(exception.FileRefused, match='not there any more'):
        commit(guest, target)
    assert not guest.discard(target)


def test_mode_and_owner_of_the_old_file_are_kept(
    guest: files.Files, path: pathlib.Path
) -> None:
    path.write_bytes(OLD)
    os.chown(path, 12, 34)
    path.chmod(0o4751)
    commit(guest, fill(create(guest, path)))
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (12, 34)
    assert stat.S_IMODE(found.st_mode) == 0o4751


@pytest.mark.parametrize('exists', [False, True])
def test_mode_that_is_asked_for(
    guest: files.Files, path: pathlib.Path, exists: bool
) -> None:
    if exists:
        path.write_bytes(OLD)
    commit(guest, fill(create(guest, path, mode='0600')))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize('exists', [False, True])
def test_owner_that_is_asked_for(
    guest: files.Files, path: pathlib.Path, exists: bool
) -> None:
    if exists:
        path.write_bytes(OLD)
        os.chown(path, 12, 34)
    target = create(guest, path, mode='4750', owner='daemon')
    # Not before what is in it was compared.
    assert target.temporary is not None
    assert stat.S_IMODE(os.stat(target.temporary).st_mode) == 0o600
    commit(guest, fill(target))
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (1, 34 if exists else 0)
    assert stat.S_IMODE(found.st_mode) == 0o4750


def test_owner_of_what_is_appended_to_stays(
    guest: files.Files, path: pathlib.Path
) -> None:
    commit(guest, fill(create(guest, path, append=True, group='daemon')))
    assert path.stat().st_gid == 1
    commit(guest, fill(create(guest, path, append=True, group='0')))
    assert path.stat().st_gid == 1


@pytest.mark.parametrize('append', [False, True])
def test_owner_that_there_is_not(
    guest: files.Files, path: pathlib.Path, append: bool
) -> None:
    with pytest.raises(exception.FileRefused, match='no-such-user'):
        create(guest, path, append=append, owner='no-such-user')
    assert listing(path) == []


@pytest.mark.parametrize('link', ['real', './real', 'absolute', 'chain'])
def test_symlinks_are_followed(
    guest: files.Files, path: pathlib.Path, link: str
) -> None:
    real = path.with_name('real')
    if link == 'chain':
        path.with_name('next').symlink_to('real')
        link = 'next'
    path.symlink_to(str(real) if link == 'absolute' else link)
    commit(guest, fill(create(guest, path)))
    assert path.is_symlink()
    assert real.read_bytes() == NEW


def test_links_in_a_circle(guest: files.Files, path: pathlib.Path) -> None:
    path.symlink_to('file')
    with pytest.raises(exception.FileRefused, match='symbolic links'):
        create(guest, path)


@pytest.mark.parametrize(
    'name',
    [
        ' ',
        'a\nb',
        'ends in newline\n',
        "'",
        '"',
        '$(touch x)',
        '`id`',
        '*',
        '-rf',
        '\\',
        '\\n',
        'ü',
        '%s',
    ],
)
def test_names(guest: files.Files, path: pathlib.Path, name: str) -> None:
    for item in (path.with_name(name), path.with_name('link')):
        if item.name == 'link':
            item.symlink_to(name)
        commit(guest, fill(create(guest, item)))
        guest.check_readable(str(item))
    assert path.with_name(name).read_bytes() == NEW
    assert listing(path) == sorted([name, 'link'])


def test_link_to_what_is_no_utf_8(
    guest: files.Files, path: pathlib.Path
) -> None:
    os.symlink(b'\xff', bytes(path))
    with pytest.raises(exception.FileRefused, match='UTF-8'):
        create(guest, path)


@pytest.mark.parametrize('make', [pathlib.Path.mkdir, os.mkfifo])
def test_what_cannot_be_written(
    guest: files.Files,
    path: pathlib.Path,
    make: Callable[[pathlib.Path], object],
) -> None:
    make(path)
    for append in (False, True):
        with pytest.raises(exception.FileUnsuitable):
            create(guest, path, append=append)
    assert listing(path) == ['file']


def test_directory_that_is_not_there(
    guest: files.Files, path: pathlib.Path
) -> None:
    with pytest.raises(exception.FileRefused) as caught:
        create(guest, path.parent / 'none' / 'file')
    assert 'irectory' in str(caught.value)


def test_wrong_content_leaves_the_old_file(
    guest: files.Files, path: pathlib.Path
) -> None:
    path.write_bytes(OLD)
    target = fill(create(guest, path), b'something else')
    with pytest.raises(exception.FileRefused, match='SHA-256'):
        commit(guest, target)
    assert path.read_bytes() == OLD
    assert not guest.discard(target)
    assert listing(path) == ['file']


def test_without_a_tool_for_it_the_size_is_verified(
    guest: files.Files,
    path: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name in ('ls', 'wc', 'mv', 'rm', 'chmod', 'stat', 'readlink'):
        (tools / name).symlink_to(str(shutil.which(name)))
    text = posix._text('file', 8).replace(
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        f'PATH={tools}',
    )
    monkeypatch.setattr(posix, '_text', lambda *args: text)
    target = fill(create(guest, path), b'short')
    # busybox finds its own tools, whatever PATH says.
    with pytest.raises(exception.FileRefused, match='5 bytes, not 11|SHA-256'):
        commit(guest, target)
    commit(guest, fill(target))
    assert path.read_bytes() == NEW


def test_commit_may_be_asked_for_again(
    guest: files.Files, path: pathlib.Path
) -> None:
    path.write_bytes(OLD)
    target = fill(create(guest, path))
    commit(guest, target)
    commit(guest, target)
    assert path.read_bytes() == NEW
    # And nothing can be discarded any more.
    assert guest.discard(target)
    assert path.read_bytes() == NEW


def test_what_was_made_is_forgotten_without_its_answer(
    guest: files.Files, path: pathlib.Path
) -> None:
    """A service was killed before it heard of it."""
    link = path.with_name('link')
    link.symlink_to(path)
    uuids = [str(uuid.uuid4()) for _ in range(2)]
    for made in uuids:
        guest.create(str(link), made, mode=None, append=False)
    for _ in range(2):
        guest.forget(str(link), uuids[0])
    assert listing(path) == [f'.ga-{uuids[1]}', 'link']


def test_commit_after_the_discard_does_nothing(
    guest: files.Files, path: pathlib.Path
) -> None:
    path.write_bytes(OLD)
    target = fill(create(guest, path))
    assert not guest.discard(target)
    with pytest.raises(exception.FileRefused):
        commit(guest, target)
    assert path.read_bytes() == OLD
    assert listing(path) == ['file']


def test_directory_that_comes_in_the_way(
    guest: files.Files, path: pathlib.Path
) -> None:
    target = fill(create(guest, path))
    path.mkdir()
    with pytest.raises(exception.FileRefused, match='is a directory'):
        commit(guest, target)
    assert list(path.iterdir()) == []


def test_append(guest: files.Files, path: pathlib.Path) -> None:
    target = create(guest, path, append=True)
    assert (target.path, target.temporary) == (str(path), None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    commit(guest, fill(target))
    create(guest, path, append=True)
    assert path.read_bytes() == NEW
    # Others may append too; less than was sent is a failure.
    path.write_bytes(NEW + OLD)
    commit(guest, target)
    path.write_bytes(b'')
    with pytest.raises(exception.FileRefused, match='0 bytes'):
        commit(guest, target)
    assert not guest.discard(target)


def test_strays(guest: files.Files, path: pathlib.Path) -> None:
    left = [str(uuid.uuid4()) for _ in range(2)]
    for name in (*left, 'no-uuid', left[0].upper()[:-1] + 'G'):
        path.with_name(f'.ga-{name}').touch()
    target = create(guest, path)
    assert sorted(target.strays) == sorted(left)
    guest.remove_strays(target, left[:1])
    assert f'.ga-{left[0]}' not in listing(path)
    assert f'.ga-{left[1]}' in listing(path)


def test_full_disk(guest: files.Files, path: pathlib.Path) -> None:
    subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'nr_inodes=1', 'none', path.parent],
        check=True,
    )
    try:
        with pytest.raises(exception.FileRefused, match='No space left'):
            create(guest, path)
    finally:
        subprocess.run(['umount', path.parent], check=True)
