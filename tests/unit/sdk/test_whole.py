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


from collections.abc import Callable
import io
import queue
from typing import Any
from unittest import mock

import pytest

from guest_agent_ext.sdk import programs
from guest_agent_ext.sdk import whole


def completed(out: bytes = b'', **values: Any) -> programs.Completed:
    return programs.Completed('id', 0, out, b'', **values)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    run = mock.Mock(return_value=completed(b'out'))
    monkeypatch.setattr(programs, 'run', run)
    return run


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    attached = mock.Mock(return_value=completed(b'all'))
    monkeypatch.setattr(whole, 'attached', attached)
    return attached


def test_short_output_is_one_command(
    run: mock.Mock, attached: mock.Mock
) -> None:
    done = whole.run(mock.sentinel.compute, 'server', ['ls', '-l'], cwd='/')
    assert done.stdout == b'out'
    (_, server, argv), options = run.call_args
    assert (server, argv[-2:], options['cwd']) == ('server', ['ls', '-l'], '/')
    run.assert_called_once()
    attached.assert_not_called()


def test_long_output_is_read_whole(
    run: mock.Mock, attached: mock.Mock
) -> None:
    run.return_value = completed(b'x' * 102400, is_cut=True)
    done = whole.run(mock.sentinel.compute, 'server', ['yes'], user='tenant')
    assert (done.stdout, done.is_cut) == (b'all', False)
    # The same file, read by who wrote it.
    name = run.call_args.args[2][3]
    assert attached.call_args.args[2][3] == name
    assert attached.call_args.kwargs['user'] == 'tenant'


def test_file_of_what_was_kept_is_removed(
    run: mock.Mock, attached: mock.Mock
) -> None:
    run.return_value = completed(b'x' * 60000)
    assert len(whole.run(mock.Mock(), 'server', ['yes']).stdout) == 60000
    assert run.call_count == 2
    assert 'rm -f' in run.call_args.args[2][2]
    attached.assert_not_called()


def test_server_without_a_place_for_the_file(
    run: mock.Mock, attached: mock.Mock
) -> None:
    run.return_value = completed(b'x' * 102400, is_cut=True)
    attached.return_value = programs.Completed('id', 1, b'', b'')
    with pytest.raises(whole.OutputCut):
        whole.run(mock.Mock(), 'server', ['yes'])


def test_long_stdin_is_streamed(run: mock.Mock, attached: mock.Mock) -> None:
    stdin = b'x' * (programs.MAX_STDIN + 1)
    whole.run(mock.Mock(), 'server', ['cat'], stdin=stdin)
    run.assert_not_called()
    assert attached.call_args.kwargs['stdin'] == stdin


class Program:
    """Plays an attached program.

    :param react: function that takes what is written to stdin, or None at its
        end, and returns what is written to both outputs; None ends them
    """

    id = 'id'

    def __init__(
        self, react: Callable[[bytes | None], tuple[bytes | None, bytes]]
    ) -> None:
        self._react = react
        self.stdin = mock.Mock(
            **{
                'write.side_effect': self._say,
                'close.side_effect': lambda: self._say(None),
            }
        )
        self.stdout, self.stderr = _Stream(), _Stream()
        self.is_left = False

    def wait(self) -> int:
        return 3

    def __enter__(self) -> 'Program':
        return self

    def __exit__(self, *_: object) -> None:
        self.is_left = True

    def _say(self, data: bytes | None) -> None:
        out, err = self._react(data)
        for stream, said in ((self.stdout, out), (self.stderr, err)):
            if said:
                stream.said.put(said)
            if out is None:
                stream.said.put(b'')


class _Stream(io.RawIOBase):
    def __init__(self) -> None:
        self.said: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read(self, size: int = -1) -> bytes:
        return self.said.get(timeout=10)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Program]:
    def play(react: Any) -> Program:
        program = Program(react)
        monkeypatch.setattr(
            whole.process, 'Process', mock.Mock(return_value=program)
        )
        return program

    return play


def test_attached_program(played: Callable[[Any], Program]) -> None:
    taken: list[bytes | None] = []

    def react(data: bytes | None) -> tuple[bytes | None, bytes]:
        taken.append(data)
        return (b'out', b'err') if data is not None else (None, b'')

    program = played(react)
    done = whole.attached(mock.Mock(), 'server', ['cat'], stdin=b'in')
    assert (done.returncode, done.stdout, done.stderr) == (3, b'out', b'err')
    assert taken == [b'in', None]
    assert program.is_left


def test_questions_are_answered_before_stdin(
    played: Callable[[Any], Program],
) -> None:
    taken: list[bytes | None] = []

    def react(data: bytes | None) -> tuple[bytes | None, bytes]:
        taken.append(data)
        answers: dict[bytes | None, tuple[bytes | None, bytes]] = {
            b'secret\n': (b'welcome', b''),
            None: (None, b''),
        }
        return answers.get(data, (b'', b''))

    def answer(out: bytes, err: bytes) -> tuple[bytes, bool]:
        return (
            (b'secret\n', False) if err == b'password:' else (b'', bool(out))
        )

    played(react).stderr.said.put(b'password:')
    done = whole.attached(
        mock.Mock(), 'server', ['su'], stdin=b'in', answer=answer
    )
    assert taken == [b'secret\n', b'in', None]
    assert (done.stdout, done.stderr) == (b'welcome', b'password:')


def test_output_is_written_as_it_comes(
    played: Callable[[Any], Program],
) -> None:
    played(lambda data: (None if data is None else b'', b'')).stdout.said.put(
        b'out'
    )
    file = io.BytesIO()
    done = whole.attached(mock.Mock(), 'server', ['cat'], write=file.write)
    assert (file.getvalue(), done.stdout) == (b'out', b'')


def test_attached_program_that_nobody_wants(
    played: Callable[[Any], Program],
) -> None:
    program = played(lambda data: (None, b''))
    with pytest.raises(programs.Unwanted):
        whole.attached(mock.Mock(), 'server', ['cat'], is_wanted=lambda: False)
    assert program.is_left


def test_what_goes_wrong_in_a_stream_is_raised(
    played: Callable[[Any], Program],
) -> None:
    program = played(lambda data: (b'', b''))
    program.stdout.read = mock.Mock(side_effect=OSError('gone'))
    with pytest.raises(OSError, match='gone'):
        whole.attached(mock.Mock(), 'server', ['cat'])
