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

import pytest

from tools.testbed import client as http
from tools.testbed import demo
from tools.testbed import tour

_ANSWERS = {
    2: ('"status": "COMPLETED"', '"exitcode": 3', '"err_data": "err\\n"'),
    3: ('"out_data": "/tmp\\ngood day\\n5\\n"',),
    4: ('"signal": 9', '"exitcode": null'),
    5: ('"out_bytes": 5000000', '"out_truncated": true', '"exitcode": 7'),
    6: ('"status": "FAILED"', '/no/such/program'),
    7: ('\n400\n', 'command.arguments.command'),
    8: ('\n404\n',),
    9: ('\n200\n', '"commands_links"'),
    10: ('\n200\n', '"state": "up"'),
}


def test_tour_shows_what_it_says(
    embedded: demo.Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = embedded.settings()
    tour.show(
        {
            variable: http.Client(
                settings['COMPUTE_URL'],
                settings[variable],
                settings['SERVER_ID'],
            )
            for variable in demo.TOKENS
        }
    )
    stops = capsys.readouterr().out.split('\n--- ')
    assert len(stops) == len(tour.STOPS) + 1
    for number, answers in _ANSWERS.items():
        for answer in answers:
            assert answer in stops[number]


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
