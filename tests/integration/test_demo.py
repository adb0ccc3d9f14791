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

"""``make up``, ``make demo`` and ``make down``."""

import pathlib
import re
import subprocess

import pytest

from tools.testbed import client as http
from tools.testbed import demo
from tools.testbed import tour

#: What the answers of the stops have in them.
_ANSWERS = (
    ('200 name "demo", status "ACTIVE"',),
    ('COMPLETED after', 'exitcode 3', 'err_data "err\\n"'),
    ('out_data "/tmp\\ngood day\\n5\\n", env ["GREETING"]',),
    ('signal 9, exitcode null',),
    ('out_bytes 5000000, out_truncated true, exitcode 7',),
    ('FAILED after', 'error ', '/no/such/program'),
    ('400 message', 'command.arguments.command'),
    ('204',),
    ('404 message "Instance ',),
    (
        '200 type "file-write", status "COMPLETED", '
        'type "exec", status "FAILED"',
    ),
    ('200 host "controller", state "up"',),
)

#: Lines of a screen that shows the tour at once.
_SCREEN = 50


def _tour_of(
    embedded: demo.Demo,
    capsys: pytest.CaptureFixture[str],
    *,
    verbose: bool = False,
) -> str:
    settings = embedded.settings()
    tour.show(
        {
            variable: http.Client(
                settings['COMPUTE_URL'],
                settings[variable],
                settings['SERVER_ID'],
            )
            for variable in demo.TOKENS
        },
        verbose=verbose,
    )
    return capsys.readouterr().out


def test_tour_shows_what_it_says(
    embedded: demo.Demo,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('COLUMNS', '80')
    shown = _tour_of(embedded, capsys)
    assert '\033' not in shown
    assert len(shown.splitlines()) <= _SCREEN
    for number, (stop, answers) in enumerate(
        zip(tour.STOPS, _ANSWERS, strict=True), 1
    ):
        title = f'{number:2} {stop.title}\n'
        assert title in shown
        # The titles alone begin with a number.
        told = re.split(
            r'^ ?\d', shown.partition(title)[2], maxsplit=1, flags=re.MULTILINE
        )[0]
        words = ' '.join(told.split())
        for answer in answers:
            assert answer in words


def test_tour_shows_whole_answers(
    embedded: demo.Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _tour_of(embedded, capsys, verbose=True)
    assert '"created_at": "' in shown
    assert '"err_truncated": false' in shown


def test_openstack_is_ready_to_use(embedded: demo.Demo) -> None:
    ended = subprocess.run(
        [
            'sh',
            '-ec',
            '. "$0"; openstack server guest exec demo -- echo hello',
            embedded.env,
        ],
        capture_output=True,
        timeout=120,
        # What another cloud has left in the environment is not heeded.
        env={
            'PATH': '/usr/bin:/bin',
            'OS_CLOUD': 'none',
            'OS_USERNAME': 'nobody',
        },
    )
    assert (ended.returncode, ended.stdout) == (0, b'hello\n'), ended.stderr


def test_down_stops_what_up_started_and_nothing_else(
    embedded: demo.Demo, tmp_path: pathlib.Path, cache: pathlib.Path
) -> None:
    demo.Demo(tmp_path, cache).up()
    # Another run of the program knows it by its directory only.
    other = demo.Demo(tmp_path, cache)
    assert other.is_up()
    assert _owners(tmp_path)
    other.down()
    assert not other.is_up()
    assert _owners(tmp_path) == []
    assert embedded.is_up()


def _owners(directory: pathlib.Path) -> list[str]:
    """Return the pids of processes whose command line names a directory."""
    found = []
    for process in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            command = (process / 'cmdline').read_bytes()
        except OSError:
            continue
        if str(directory).encode() in command:
            found.append(process.name)
    return found
