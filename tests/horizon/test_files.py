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

"""What the distribution has beside its code."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from guest_agent_ext import dashboard

_SOURCE = pathlib.Path(str(dashboard.__file__)).parent
_XTERM = _SOURCE / 'static/guest_agent/xterm'


def test_xterm_is_what_its_publisher_has() -> None:
    sums = dict(
        reversed(line.split())
        for line in (_XTERM / 'README').read_text().splitlines()
        if len(line.split(' ', 1)[0]) == 64
    )
    assert set(sums) == {'xterm.js', 'xterm.css', 'LICENSE'}
    for name, expected in sums.items():
        found = hashlib.sha256((_XTERM / name).read_bytes()).hexdigest()
        assert found == expected, name


def test_texts_can_be_extracted(tmp_path: pathlib.Path) -> None:
    """Of modules, templates and scripts, by Django's own command."""
    copy = tmp_path / 'dashboard'
    shutil.copytree(
        _SOURCE, copy, ignore=shutil.ignore_patterns('xterm', '*.pyc')
    )
    (copy / 'locale').mkdir()
    texts = ''
    for domain in ('django', 'djangojs'):
        subprocess.run(
            [sys.executable, '-m', 'django', 'makemessages', '-l', 'de']
            + ['-d', domain],
            cwd=copy,
            # It needs no settings, and does not find those of the tests.
            env={
                name: value
                for name, value in os.environ.items()
                if name != 'DJANGO_SETTINGS_MODULE'
            },
            check=True,
            capture_output=True,
        )
        catalog = copy / f'locale/de/LC_MESSAGES/{domain}.po'
        texts += catalog.read_text()
    for text in (
        'Start the instance.',
        'Run a command',
        'No command was run in this instance yet.',
        '%d seconds',
        'Start the run',
        'ended with another exit code',
        'Choose instances, or name tags or metadata.',
    ):
        assert f'"{text}"' in texts, text


def test_pages_have_no_script_in_them() -> None:
    """A site may forbid that, and an escape that fails does no harm then."""
    for path in (_SOURCE / 'templates').rglob('*.html'):
        text = path.read_text()
        assert '<script' not in text and 'onclick' not in text, path
        assert 'autoescape' not in text and '|safe' not in text, path


def test_scripts_make_no_html_of_text() -> None:
    for path in (_SOURCE / 'static/guest_agent').glob('*.js'):
        text = path.read_text()
        for word in ('innerHTML', 'outerHTML', 'insertAdjacent', 'eval('):
            assert word not in text, path
        assert 'document.write' not in text, path
