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


from collections.abc import Iterator

from oslo_config import cfg
import pytest

from guest_agent_ext.conf import guest_agent


@pytest.fixture
def conf() -> Iterator[cfg.ConfigOpts]:
    conf = cfg.ConfigOpts()
    guest_agent.register_opts(conf)
    conf([], default_config_files=[])
    yield conf
    # It is kept with the group, which others share.
    conf.clear_override('metrics_bind', group='guest_agent')


@pytest.mark.parametrize(
    ('value', 'address'),
    [
        ('127.0.0.1:9177', ('127.0.0.1', 9177)),
        ('[::1]:9177', ('::1', 9177)),
        ('management.example.org:1', ('management.example.org', 1)),
    ],
)
def test_metrics_bind(
    conf: cfg.ConfigOpts, value: str, address: tuple[str, int]
) -> None:
    conf.set_override('metrics_bind', value, group='guest_agent')
    assert conf.guest_agent.metrics_bind == address


@pytest.mark.parametrize(
    'value',
    [
        '',
        '127.0.0.1',
        '9177',
        ':9177',
        '::1',
        '[::1]',
        '127.0.0.1:',
        '127.0.0.1:http',
        '127.0.0.1:65536',
        '127.0.0.1:-1',
        'a:b:1',
    ],
)
def test_metrics_bind_that_is_no_address(
    conf: cfg.ConfigOpts, value: str
) -> None:
    with pytest.raises(ValueError, match=r'must be host:port.*not '):
        conf.set_override('metrics_bind', value, group='guest_agent')


def test_metrics_are_shown_nowhere_by_default(conf: cfg.ConfigOpts) -> None:
    assert conf.guest_agent.metrics_bind is None
