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

import threading
import time

from guest_agent_ext import clock


def test_system_s_clock_is_the_monotonic_one() -> None:
    before = time.monotonic()
    assert before <= clock.SystemClock().now() <= time.monotonic()


def test_wait_ends_when_the_condition_is_notified() -> None:
    condition = threading.Condition()

    def notify() -> None:
        with condition:
            condition.notify()

    system = clock.SystemClock()
    began = system.now()
    with condition:
        threading.Thread(target=notify).start()
        system.wait(condition, 60)
    assert system.now() - began < 60
    with condition:
        system.wait(condition, 0.001)
