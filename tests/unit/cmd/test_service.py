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

"""What ends a service, and what does not."""

from collections.abc import Iterator
import os
import pathlib
import signal
import threading

from oslo_config import cfg
import pytest

from guest_agent_ext import conf
from guest_agent_ext.cmd import service

#: Seconds after which a test is given up.
PATIENCE = 10


class Played:
    """A service that signals its own process once it was started.

    :param signals: sent one after the other
    """

    def __init__(self, *signals: int) -> None:
        self.stopped = 0
        self._signals = signals

    def start(self) -> None:
        for number in self._signals:
            os.kill(os.getpid(), number)

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> cfg.ConfigOpts:
    """A configuration of its own, with an option that can change."""
    config = cfg.ConfigOpts()
    group = cfg.OptGroup('car')
    options = [
        cfg.IntOpt('speed', default=1, mutable=True),
        cfg.IntOpt('size', default=1),
    ]
    config.register_opts(options, group=group)
    path = tmp_path / 'conf'
    path.write_text('[car]\nspeed = 2\n')
    config(['--config-file', str(path)])
    path.write_text('[car]\nspeed = 3\nsize = 3\n')
    monkeypatch.setattr(service, 'CONF', config)
    monkeypatch.setattr(conf, 'list_opts', lambda: [(group, options)])
    return config


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_stops(number: int) -> None:
    played = Played(number)
    service.serve(played, threading.Event())
    assert played.stopped == 1


def test_service_that_stops_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, 'STOP_GAP', 0.01)
    stopping, played = threading.Event(), Played()
    threading.Timer(0.05, stopping.set).start()
    service.serve(played, stopping)
    assert played.stopped == 1


def test_reload_changes_what_is_mutable_and_stops_nothing(
    config: cfg.ConfigOpts,
) -> None:
    played = Played(signal.SIGHUP, signal.SIGTERM)
    service.serve(played, threading.Event())
    assert (config.car.speed, config.car.size, played.stopped) == (3, 1, 1)


@pytest.mark.parametrize('text', ['[car', '[car]\nspeed = fast\n'])
def test_configuration_that_cannot_be_read_changes_nothing(
    config: cfg.ConfigOpts, tmp_path: pathlib.Path, text: str
) -> None:
    (tmp_path / 'conf').write_text(text)
    service.reload()
    assert config.car.speed == 2
    (tmp_path / 'conf').unlink()
    service.reload()
    assert config.car.speed == 2
