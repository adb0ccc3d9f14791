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

import importlib

import pytest

from guest_agent_ext import exception
from tools.faults.traps import traps


@pytest.mark.parametrize('name', traps.PLACES)
def test_loss_is_what_the_callers_expect(name: str) -> None:
    """Else each trap is met as a bug, which is logged and waited out."""
    place = traps.PLACES[name]
    module, kind, arguments = place.loss
    error = getattr(importlib.import_module(module), kind)(**arguments)
    if place.module.startswith('guest_agent_ext.db.'):
        assert module == 'oslo_db.exception'
        return
    if place.module.startswith('guest_agent_ext.guest.'):
        assert isinstance(error, exception.GuestError)
        return
    owner, function = place.function.split('.')
    api = getattr(importlib.import_module(place.module), owner)
    told = (api.__doc__ or '') + (getattr(api, function).__doc__ or '')
    assert f'exception.{kind}' in told
