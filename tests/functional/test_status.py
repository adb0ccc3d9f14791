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

"""guest-agent-status upgrade check."""

from collections.abc import Iterator
import pathlib
from unittest import mock

from keystoneauth1 import exceptions as ksa_exc
from nova.limit import utils as limit_utils
from oslo_db import exception as db_exc
from oslo_upgradecheck import upgradecheck
import pytest

from guest_agent_ext import conf
from guest_agent_ext.api import quota
from guest_agent_ext.cmd import status
from guest_agent_ext.db import migration
from tests.functional.api import base
from tests.functional.db import contract

CONF = conf.CONF
Code = upgradecheck.Code


@pytest.fixture
def database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[None]:
    yield from contract.connect(monkeypatch, f'sqlite:///{tmp_path}/db')


def _find_file(name: str) -> str | None:
    return name if pathlib.Path(name).exists() else None


@pytest.fixture
def paste(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[pathlib.Path]:
    """Nova's paste configuration with what our sample changes."""
    path = tmp_path / 'api-paste.ini'
    base.write_paste_config(path)
    monkeypatch.setattr(CONF, 'find_file', _find_file)
    CONF.set_override('api_paste_config', str(path), group='wsgi')
    yield path
    CONF.clear_override('api_paste_config', group='wsgi')


@pytest.fixture
def unified_limits() -> Iterator[None]:
    CONF.set_override(
        'driver', limit_utils.UNIFIED_LIMITS_DRIVER, group='quota'
    )
    yield
    CONF.clear_override('driver', group='quota')
    CONF.clear_override('unified_limits_resource_strategy', group='quota')


def test_tables(database: None) -> None:
    assert status.Checks().check_tables().code == Code.SUCCESS


def test_no_tables(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, 'VERSION_TABLE', 'not_there')
    result = status.Checks().check_tables()
    assert result.code == Code.FAILURE
    assert 'guest-agent-manage db sync' in result.details


def test_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        migration, 'version', mock.Mock(side_effect=db_exc.DBConnectionError())
    )
    assert status.Checks().check_tables().code == Code.FAILURE


def test_paste(paste: pathlib.Path) -> None:
    assert status.Checks().check_paste().code == Code.SUCCESS


@pytest.mark.parametrize(
    ('there', 'instead'),
    [
        (' guest_agent osapi', ' osapi'),
        (
            'legacy_v2_compatible guest_agent',
            'guest_agent legacy_v2_compatible',
        ),
        ('[filter:guest_agent]', '[filter:other]'),
    ],
)
def test_paste_without_the_filter(
    paste: pathlib.Path, there: str, instead: str
) -> None:
    paste.write_text(paste.read_text().replace(there, instead))
    result = status.Checks().check_paste()
    assert result.code == Code.FAILURE
    assert status._PIPELINES[1] in result.details


def test_nova_api_runs_elsewhere(paste: pathlib.Path) -> None:
    paste.unlink()
    assert status.Checks().check_paste().code == Code.WARNING


def test_limit_of_the_configuration() -> None:
    assert status.Checks().check_limit().code == Code.SUCCESS


@pytest.mark.parametrize(
    ('registered', 'strategy', 'code'),
    [
        (quota.RESOURCE, 'require', Code.SUCCESS),
        ('servers', 'require', Code.WARNING),
        ('servers', 'ignore', Code.FAILURE),
    ],
)
def test_registered_limit(
    unified_limits: None,
    monkeypatch: pytest.MonkeyPatch,
    registered: str,
    strategy: str,
    code: Code,
) -> None:
    CONF.set_override(
        'unified_limits_resource_strategy', strategy, group='quota'
    )
    client = mock.Mock()
    client.registered_limits.return_value = [
        mock.Mock(resource_name=registered)
    ]
    monkeypatch.setattr(limit_utils, '_identity_client', lambda: client)
    assert status.Checks().check_limit().code == code


def test_keystone_does_not_answer(
    unified_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        limit_utils,
        '_identity_client',
        mock.Mock(side_effect=ksa_exc.ConnectFailure()),
    )
    assert status.Checks().check_limit().code == Code.FAILURE
