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

"""``make test``: runs the parts side by side, and says how it went.

Each part is a target of the Makefile. As many run at once as keep the
processors busy: most of the time most tests wait. The first failure of a part
ends that part alone.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from xml.etree import ElementTree

_ROOT = pathlib.Path(__file__).parents[1]

#: Of everything that a run leaves; each part has a directory of its own in it.
_DIRECTORY = _ROOT / '.test'
_LOGS = _DIRECTORY / 'log'

#: Seconds between two looks at what runs.
_POLL = 0.2

#: Lines of the log of a part that failed, and tests that are named as slow.
_LAST_LINES = 100
_SLOWEST = 10

#: Lines that a failed test says in the end, and characters of each.
_LINES, _LINE = 12, 300


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the gate.

    :ivar name: what it is called, and its target in the Makefile
    :ivar load: processors that it keeps busy on average
    :ivar targets: those of the Makefile, if the name is none
    :ivar after: the part that must have passed before
    """

    name: str
    load: float
    targets: tuple[str, ...] = ()
    after: str | None = None


#: In the order in which they are started, as far as there is room.
PARTS = (
    Part(
        'openstack',
        0.9,
        (
            '.stack/openstack/extension',
            '.stack/client/extension',
            '.stack/horizon/static/built',
        ),
    ),
    Part('lint', 1.0),
    Part('types', 1.0),
    Part('integration-files', 0.8),
    Part('stack', 0.9, after='openstack'),
    Part('integration-debian', 0.9),
    Part('integration-services', 0.7),
    Part('faults', 0.8),
    Part('integration-moves', 0.7),
    Part('integration-guests', 0.9),
    Part('integration-embedded', 0.7),
    Part('panel', 1.0, after='openstack'),
    Part('functional', 1.0),
    Part('unit', 1.0),
    Part('docs', 1.0),
)


@dataclasses.dataclass(frozen=True)
class Test:
    """One test that has run.

    :ivar seconds: with what was set up for it and torn down
    :ivar failure: what was wrong, in a few lines; None if it passed
    """

    name: str
    seconds: float
    failure: str | None = None


@dataclasses.dataclass
class Result:
    """What came of a part.

    :ivar status: the exit code, None if it was not started
    :ivar busy: seconds of a processor that all its processes took
    """

    part: Part
    status: int | None
    seconds: float = 0.0
    busy: float = 0.0
    tests: Sequence[Test] = ()

    @property
    def has_passed(self) -> bool:
        return self.status == 0

    @property
    def outcome(self) -> str:
        if self.status is None:
            return 'not run'
        return 'passed' if self.has_passed else 'FAILED'


class Run:
    """A part that runs."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._began = time.monotonic()
        # That of the make that we are under, whose jobs are not ours.
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name != 'MAKEFLAGS'
        }
        with _log(part).open('wb') as log:
            # A group of its own: what is typed at the terminal is for us, who
            # end the parts. And nothing outlives us, however we end.
            self._pid = subprocess.Popen(
                [
                    'setpriv',
                    '--pdeathsig',
                    'KILL',
                    'make',
                    '--no-print-directory',
                    *(part.targets or [part.name]),
                ],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **inherited,
                    'TEST_REPORTS': str(_reports(part)),
                    'PYTEST_ADDOPTS': '--exitfirst '
                    + os.environ.get('PYTEST_ADDOPTS', ''),
                },
            ).pid

    def result(self) -> Result | None:
        """Return what came of it; None while it runs."""
        pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        if not pid:
            return None
        return Result(
            self.part,
            os.waitstatus_to_exitcode(status),
            time.monotonic() - self._began,
            usage.ru_utime + usage.ru_stime,
            [
                test
                for report in _reports(self.part).glob('*.xml')
                for test in tests_of(report.read_text())
            ],
        )

    def end(self) -> None:
        """End it: its log says how far it came."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _log(part: Part) -> pathlib.Path:
    return _LOGS / f'{part.name}.log'


def _reports(part: Part) -> pathlib.Path:
    """Return where each pytest of a part writes its report."""
    return _LOGS / part.name


def tests_of(junit: str) -> list[Test]:
    """Return the tests of a report.

    :param junit: pytest's XML
    """
    return [
        Test(
            f'{case.get("classname")}::{case.get("name")}',
            float(case.get('time', 0)),
            _failure(case),
        )
        for case in ElementTree.fromstring(junit).iter('testcase')
    ]


def _failure(case: ElementTree.Element) -> str | None:
    for tag in ('failure', 'error'):
        found = case.find(tag)
        if found is not None:
            lines = found.get('message', '').splitlines()[:_LINES]
            return '\n'.join(line[:_LINE] for line in lines)
    return None


def chosen(names: Sequence[str]) -> list[Part]:
    """Return the parts that are to run; none waits for one that is not.

    :param names: names of the parts, none for all parts
    """
    parts = [part for part in PARTS if part.name in names or not names]
    return [
        part
        if any(part.after == other.name for other in parts)
        else dataclasses.replace(part, after=None)
        for part in parts
    ]


def startable(
    parts: Iterable[Part],
    results: Mapping[str, Result],
    running: Iterable[Part],
    room: float,
) -> Part | None:
    """Return the next part to start.

    :param parts: parts that have not been started
    :param results: results of the parts that have ended, by name
    :param room: processors; one part is started however few there are
    """
    load = sum(part.load for part in running)
    for part in parts:
        waits = part.after is not None and part.after not in results
        if not waits and (not load or load + part.load <= room):
            return part
    return None


def run_all(
    parts: Sequence[Part], room: float, start: Callable[[Part], Run] = Run
) -> Iterator[Result]:
    """Run parts, and tell what came of each when it ends.

    :param room: processors that there are to keep busy
    """
    waiting = list(parts)
    results: dict[str, Result] = {}
    running: dict[str, Run] = {}
    try:
        while waiting or running:
            part = startable(
                waiting, results, [run.part for run in running.values()], room
            )
            if part is not None:
                waiting.remove(part)
                if part.after and not results[part.after].has_passed:
                    results[part.name] = Result(part, None)
                    yield results[part.name]
                else:
                    running[part.name] = start(part)
                continue
            time.sleep(_POLL)
            for name, run in tuple(running.items()):
                ended = run.result()
                if ended is not None:
                    del running[name]
                    results[name] = ended
                    yield ended
    finally:
        for run in running.values():
            run.end()


def report(results: Sequence[Result], seconds: float) -> str:
    """Return a line for each part, the slowest tests, and the count."""
    tests = [test for result in results for test in result.tests]
    failed = [test for test in tests if test.failure is not None]
    slowest = sorted(tests, key=lambda test: -test.seconds)[:_SLOWEST]
    bad = [result for result in results if not result.has_passed]
    lines = [
        '',
        f'The {len(slowest)} slowest tests:',
        *(f'  {test.seconds:6.1f} s  {test.name}' for test in slowest),
        '',
        'Parts:',
        *(_line(result) for result in results),
    ]
    for result in bad:
        if result.status is not None:
            lines += [
                '',
                f'{result.part.name} failed, see '
                f'{_log(result.part).relative_to(_ROOT)}',
            ]
    lines += [
        line
        for test in failed
        for line in (
            '',
            f'FAILED {test.name}',
            textwrap.indent(test.failure or '', '  '),
        )
    ]
    lines += [
        '',
        f'{"FAILED" if bad else "passed"} in {_clock(seconds)}',
        # A part without tests, or one that broke off, counts too.
        f'{len(tests) - len(failed)} passed, '
        f'{max(len(failed), len(bad))} failed',
    ]
    return '\n'.join(lines)


def _line(result: Result) -> str:
    tests = f'{len(result.tests):5} tests' if result.tests else ''
    return (
        f'  {result.part.name:20} {result.outcome:8} '
        f'{_clock(result.seconds):>6}  processor {_clock(result.busy):>6} '
        f'{tests}'
    ).rstrip()


def _clock(seconds: float) -> str:
    return '%d:%02d' % divmod(round(seconds), 60)


def _last_words(part: Part) -> str:
    text = _log(part).read_text(errors='replace')
    # A test's own report comes before what was captured of its services.
    failures = re.search(r'^=+ (FAILURES|ERRORS) =+$', text, re.M)
    lines = text[failures.start() if failures else 0 :].splitlines()
    if failures and len(lines) > _LAST_LINES:
        half = _LAST_LINES // 2
        lines = [*lines[:half], '[...]', *lines[-half:]]
    return '\n'.join(f'  | {line}' for line in lines[-_LAST_LINES - 1 :])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep out another run in the same directory."""
    _DIRECTORY.mkdir(exist_ok=True)
    with (_DIRECTORY / 'gate.lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit('make test is under way in this directory already')
        shutil.rmtree(_LOGS, ignore_errors=True)
        _LOGS.mkdir()
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tools.gate')
    parser.add_argument(
        'part', nargs='*', help='one of those that are to run; none is all'
    )
    names = parser.parse_args().part
    if not {part.name for part in PARTS} >= set(names):
        parser.error('the parts are ' + ', '.join(part.name for part in PARTS))
    parts = chosen(names)
    # Ended like this too, it ends its parts.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    results = []
    processors = len(os.sched_getaffinity(0))
    with _alone():
        print(f'Logs are in {_LOGS.relative_to(_ROOT)}', flush=True)
        try:
            for result in run_all(parts, 1.3 * processors):
                print(
                    f'{_clock(time.monotonic() - began):>6} {_line(result)}',
                    flush=True,
                )
                if result.status:
                    print(_last_words(result.part), flush=True)
                results.append(result)
        except KeyboardInterrupt:
            print('Interrupted', file=sys.stderr)
            return 130
    print(report(results, time.monotonic() - began))
    return 0 if all(result.has_passed for result in results) else 1


if __name__ == '__main__':
    sys.exit(main())
