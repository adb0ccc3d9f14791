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


import sys
import types
from typing import Any

import pytest

from guest_agent_ext.api import slots


def test_slots_are_bounded_and_given_back() -> None:
    found = slots.Slots()
    with found.one(2) as first, found.one(2) as second:
        with found.one(2) as third:
            assert (first, second, third) == (True, True, False)
        with found.one(2) as fourth:
            assert not fourth
    with found.one(1) as again:
        assert again


@pytest.mark.parametrize(
    ('name', 'content', 'threads'),
    [
        ('uwsgi', {'opt': {'threads': b'6'}}, 6),
        ('uwsgi', {'opt': {}}, 1),
        ('mod_wsgi', {'threads_per_process': 15}, 15),
        ('mod_wsgi', {}, slots.THREADS),
        ('none', {}, slots.THREADS),
    ],
)
def test_threads_of_a_server(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: dict[str, Any],
    threads: int,
) -> None:
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content))
    assert slots.threads({'wsgi.multithread': True}) == threads
    assert slots.threads({'wsgi.multithread': False}) == 1
