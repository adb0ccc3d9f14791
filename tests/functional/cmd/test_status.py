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
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
from oslo_upgradecheck import upgradecheck
import pytest

from guest_agent_ext import conf
from guest_agent_ext import limits
from guest_agent_ext.cmd import status
from guest_agent_ext.db import migration
from guest_agent_ext.db import session
from tests.functional.api import base
from tests.functional.db import base as db_base

CONF = conf.CONF
Code = upgradecheck.Code


@pytest.fixture
def database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[None]:
    yield from db_base.connect(monkeypatch, f'sqlite:///{tmp_path}/db')


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


def test_database_is_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    unconfigured = enginefacade.transaction_context()
    unconfigured.configure(connection=None)
    monkeypatch.setattr(session, '_context_manager', unconfigured)
    result = status.Checks().check_tables()
    assert result.code == Code.FAILURE
    assert '[api_database] connection' in result.details


@pytest.mark.parametrize(
    'name', [name for name in vars(status.Checks) if name.startswith('check_')]
)
def test_check_that_fails_is_a_failure(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = mock.Mock(side_effect=RuntimeError('unforeseen'))
    for module, attribute in (
        (migration, 'version'),
        (CONF, 'find_file'),
        (status.hosts, 'list_all'),
        (limit_utils, 'use_unified_limits'),
    ):
        monkeypatch.setattr(module, attribute, broken)
    result = getattr(status.Checks(), name)()
    assert result.code == Code.FAILURE
    assert 'unforeseen' in result.details


def test_configuration_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        status.upgradecheck, 'register_cli_options', mock.Mock()
    )
    monkeypatch.setattr(
        status.options,
        'parse',
        mock.Mock(side_effect=cfg.ConfigFilesNotFoundError(['nova.conf'])),
    )
    assert status.main() == Code.FAILURE
    assert 'nova.conf' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('computes', 'code'),
    [
        ({'one': {'a', 'b'}, 'two': set()}, Code.SUCCESS),
        ({'one': {'a'}, 'two': {'b'}}, Code.WARNING),
        (
            {
                'one': {f'host-{number:02}' for number in range(20)},
                'two': set(),
            },
            Code.WARNING,
        ),
    ],
)
def test_hosts_without_a_service(
    database: None,
    monkeypatch: pytest.MonkeyPatch,
    computes: dict[str, set[str]],
    code: Code,
) -> None:
    for host in ('a', 'b'):
        status.hosts.register(
            'one', host, machine_id='m', version='1', down_time=60
        )
    monkeypatch.setattr(
        status.servers,
        'cells',
        lambda: [mock.Mock(uuid=uuid) for uuid in computes],
    )
    monkeypatch.setattr(
        status.servers, 'computes', lambda cell: computes[cell.uuid]
    )
    result = status.Checks().check_hosts()
    assert result.code == code
    if computes['two']:
        assert result.details.endswith(': b')
    elif code == Code.WARNING:
        assert result.details.endswith('host-09 and 10 more')


@pytest.mark.parametrize(
    'stock',
    [
        'paste.filter_factory = '
        'oslo_middleware.sizelimit:RequestBodySizeLimiter.factory',
        'use = egg:oslo.middleware#sizelimit',
    ],
)
def test_stock_limiter_is_told_of(paste: pathlib.Path, stock: str) -> None:
    ours = 'paste.filter_factory = ' + status._LIMITER
    assert ours in paste.read_text()
    paste.write_text(paste.read_text().replace(ours, stock))
    result = status.Checks().check_paste()
    assert result.code == Code.WARNING
    assert status._LIMITER in result.details


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
        (limits.RESOURCE, 'require', Code.SUCCESS),
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
