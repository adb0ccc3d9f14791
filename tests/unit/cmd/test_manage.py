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

"""What guest-agent-manage understands and answers."""

import argparse
from unittest import mock

import pytest

from guest_agent_ext import exception
from guest_agent_ext.cmd import manage
from guest_agent_ext.conductor import purge
from guest_agent_ext.db import hosts
from guest_agent_ext.db import migration


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """What the command line was."""
    conf = mock.Mock()
    monkeypatch.setattr(manage, 'CONF', conf)
    given: mock.Mock = conf.command
    return given


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    manage._add_parsers(parser.add_subparsers(dest='name', required=True))
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ('words', 'action'),
    [
        (['db', 'sync'], manage.db_sync),
        (['db', 'version'], manage.db_version),
        (['host', 'list'], manage.host_list),
        (['host', 'delete', 'a'], manage.host_delete),
        (['purge'], manage.purge),
    ],
)
def test_words_lead_to_their_action(words: list[str], action: object) -> None:
    given = parse(*words)
    assert manage._ACTIONS[given.name, given.action] is action


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['db'],
        ['host'],
        ['host', 'delete'],
        ['purge', 'all'],
        ['db', 'drop'],
    ],
)
def test_words_that_lead_nowhere_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*words)


def test_host_does_not_replace_the_option_of_nova() -> None:
    """CONF.host is the name of this host, for all of Nova."""
    given = vars(parse('host', 'delete', 'a', '--cell', 'b'))
    assert (given['compute_host'], given['cell']) == ('a', 'b')
    assert 'host' not in given


def test_tables_are_upgraded_as_far_as_asked(
    command: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse('db', 'sync').version == 'head'
    command.version = '0001'
    sync = mock.Mock()
    monkeypatch.setattr(migration, 'sync', sync)
    monkeypatch.setattr(migration, 'version', lambda: '0001')
    assert manage.db_sync() == 0
    sync.assert_called_once_with('0001')
    assert capsys.readouterr().out == '0001\n'


def test_database_without_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(migration, 'version', lambda: None)
    assert manage.db_version() == 0
    assert capsys.readouterr().out == 'no tables yet\n'


def test_host_that_cannot_be_removed_is_an_error(
    command: mock.Mock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Told on stderr alone, with a status that scripts can see."""
    monkeypatch.setattr(
        hosts, 'remove', mock.Mock(side_effect=exception.HostInUse('in use'))
    )
    assert manage.host_delete() == 1
    assert capsys.readouterr() == ('', 'in use\n')


def test_purge_tells_how_many_it_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than were counted before, if some are beyond a bound."""
    monkeypatch.setattr(purge, 'count', lambda: 1)
    monkeypatch.setattr(purge, 'run', lambda: iter([2, 0, 1]))
    assert manage.purge() == 0
    assert capsys.readouterr().out == 'Removed commands: 3\n'
