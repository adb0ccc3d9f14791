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


"""Programs whose stdin and output are whole, whatever their size.

A command keeps 102,400 bytes of its output. Here what a shell in the server
runs writes into a file there, which is shown when the program has ended: a
program with more output costs two commands, and no other any more than one.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import io
import queue
import threading
from typing import Any
import uuid

from keystoneauth1 import adapter

from guest_agent_ext.sdk import process
from guest_agent_ext.sdk import programs

#: stdout of so many bytes is kept whatever is written to stderr.
_KEPT = 51200
_PIECE = 64 * 1024
#: Seconds to wait for what a program with a question says.
_QUIET = 120

_DIRECTORIES = '/dev/shm /run /tmp'
#: Runs its arguments with stdout in a file that nobody else can read. $0 is
#: the name of the file; it stays if it may be too long to be kept.
_SPOOL = f"""\
for d in {_DIRECTORIES}; do
  f=$d/$0
  (umask 077; set -C; : >"$f") 2>/dev/null && break
  f=
done
[ "$f" ] || exec "$@"
trap 'rm -f "$f"' HUP INT TERM
"$@" >>"$f"
c=$?
cat "$f"
[ "$(wc -c <"$f")" -gt {_KEPT} ] || rm -f "$f"
exit $c"""
#: Shows the file, and removes it.
_COLLECT = f"""\
for d in {_DIRECTORIES}; do
  f=$d/$0
  [ ! -f "$f" ] || {{ cat "$f" && rm -f "$f"; exit; }}
done
exit 1"""
_REMOVE = f'for d in {_DIRECTORIES}; do rm -f "$d/$0"; done'

#: Takes what a program has written to stdout and stderr since the last time,
#: and returns bytes to write to stdin, and True if it has no more questions.
Answer = Callable[[bytes, bytes], tuple[bytes, bool]]


class OutputCut(Exception):
    """A program wrote more than was kept."""


def run(
    compute: adapter.Adapter,
    server_id: str,
    args: Sequence[str],
    *,
    stdin: bytes = b'',
    user: str | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    **options: Any,
) -> programs.Completed:
    """Run a program to its end in a server with a POSIX shell.

    The arguments are those of ``programs.run``, with a stdin of any size.

    :raises OutputCut: stdout is long, and the server has no place to keep it
    """
    if len(stdin) > programs.MAX_STDIN:
        return attached(
            compute,
            server_id,
            args,
            stdin=stdin,
            user=user,
            is_wanted=is_wanted,
            **options,
        )
    name = f'guest-agent-{uuid.uuid4().hex}'
    done = programs.run(
        compute,
        server_id,
        ['/bin/sh', '-c', _SPOOL, name, *args],
        stdin=stdin,
        user=user,
        is_wanted=is_wanted,
        **options,
    )
    if len(done.stdout) <= _KEPT and not done.is_cut:
        return done
    if not done.is_cut:
        shell = ['/bin/sh', '-c', _REMOVE, name]
        programs.run(compute, server_id, shell, user=user)
        return done
    shell = ['/bin/sh', '-c', _COLLECT, name]
    whole = attached(compute, server_id, shell, user=user, is_wanted=is_wanted)
    if whole.returncode:
        raise OutputCut(
            f'The program wrote more than the {len(done.stdout)} bytes of '
            f'output that are kept, and none of {_DIRECTORIES} can be '
            'written to'
        )
    return dataclasses.replace(done, stdout=whole.stdout, is_cut=False)


def attached(
    compute: adapter.Adapter,
    server_id: str,
    args: Sequence[str],
    *,
    stdin: bytes = b'',
    answer: Answer | None = None,
    write: Callable[[bytes], object] | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    **options: Any,
) -> programs.Completed:
    """Run an attached program to its end.

    :param stdin: bytes for the program, of any size
    :param answer: function that answers what the program asks before stdin is
        sent; None if it asks nothing
    :param write: function that takes stdout as it comes; None to return it
    :param is_wanted: function that returns False when the program is to be
        cancelled
    :param options: arguments of ``process.Process``
    """
    with process.Process(compute, server_id, args, **options) as program:
        return _Conversation(program, write, is_wanted).hold(answer, stdin)


class _Conversation:
    """What is said between a program and its client.

    :param program: the program
    :param write: function that takes stdout as it comes; None to keep it
    :param is_wanted: function that returns False to end it
    """

    def __init__(
        self,
        program: process.Process,
        write: Callable[[bytes], object] | None,
        is_wanted: Callable[[], bool],
    ) -> None:
        self._program = program
        self._write = write
        self._is_wanted = is_wanted
        #: Name of a stream with bytes, none at its end; or what went wrong.
        self._events: queue.SimpleQueue[tuple[str, bytes] | BaseException] = (
            queue.SimpleQueue()
        )
        self._said: Mapping[str, bytearray] = {
            'out': bytearray(),
            'err': bytearray(),
        }
        self._open = set(self._said)

    def hold(self, answer: Answer | None, stdin: bytes) -> programs.Completed:
        self._start(self._listen, 'out', self._program.stdout)
        self._start(self._listen, 'err', self._program.stderr)
        if answer is not None:
            self._answer(answer)
        self._start(self._talk, stdin)
        while self._open:
            self._next(process.LONG_POLL)
        return programs.Completed(
            self._program.id,
            self._program.wait(),
            bytes(self._said['out']),
            bytes(self._said['err']),
        )

    def _answer(self, answer: Answer) -> None:
        """Answer questions until there are no more."""
        seen = {'out': 0, 'err': 0}
        while self._open and self._next(_QUIET):
            said = {
                name: bytes(data[seen[name] :])
                for name, data in self._said.items()
            }
            seen = {name: len(data) for name, data in self._said.items()}
            reply, is_over = answer(said['out'], said['err'])
            if reply:
                self._program.stdin.write(reply)
            if is_over:
                return

    def _next(self, seconds: float) -> bool:
        """Take what is said next; return False if nothing was."""
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            event = None
        if not self._is_wanted():
            raise programs.Unwanted
        if event is None:
            return False
        if isinstance(event, BaseException):
            raise event
        name, data = event
        if not data:
            self._open.discard(name)
        elif name == 'out' and self._write is not None:
            self._write(data)
        else:
            self._said[name].extend(data)
        return True

    def _start(self, target: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                target(*args)
            except BaseException as error:
                # The caller's thread raises it.
                self._events.put(error)

        threading.Thread(target=run, daemon=True).start()

    def _listen(self, name: str, stream: io.RawIOBase) -> None:
        while data := stream.read(_PIECE):
            self._events.put((name, data))
        self._events.put((name, b''))

    def _talk(self, stdin: bytes) -> None:
        try:
            self._program.stdin.write(stdin)
            self._program.stdin.close()
        except BrokenPipeError:
            # The program has ended: its streams tell the rest.
            return
