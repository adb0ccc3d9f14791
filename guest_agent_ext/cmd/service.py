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

"""Runs a service: signals, configuration and memory."""

import ctypes
import queue
import signal
import threading
from typing import Protocol

from oslo_config import cfg
from oslo_log import log as logging

from guest_agent_ext import conf

CONF = conf.CONF
LOG = logging.getLogger(__name__)

#: Parameter of mallopt(3), and the size from which on each block of memory is
#: mapped by itself, in bytes.
_M_MMAP_THRESHOLD = -3
_LARGE = 128 * 1024
#: Seconds between two checks whether the service has stopped by itself.
STOP_GAP = 1.0


class Service(Protocol):
    """A service that serve() runs."""

    def start(self) -> None:
        """Start the service's threads and return."""

    def stop(self) -> None:
        """Stop the service, in limited time."""


def return_memory() -> None:
    """Make glibc return large buffers to the system when they are freed.

    By default it keeps more and more of them in the heap of each thread, and
    chunks of files pass through many threads.
    """
    libc = ctypes.CDLL(None)
    # Other C libraries have neither the habit nor the function.
    if hasattr(libc, 'mallopt'):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)


def serve(service: Service, stopping: threading.Event) -> None:
    """Run a service until SIGTERM, SIGINT or the end of the service.

    SIGHUP makes the service read the configuration again.

    :param stopping: event that the service sets when it must stop
    """
    # A signal may interrupt get(), and put() works then. The set() of an event
    # would wait for the lock that the interrupted wait() holds.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda signum, frame: signals.put(signum))
    service.start()
    while not stopping.is_set():
        try:
            received = signals.get(timeout=STOP_GAP)
        except queue.Empty:
            continue
        if received != signal.SIGHUP:
            break
        reload()
    service.stop()


def reload() -> None:
    """Read the configuration files again, for the mutable options.

    oslo.config logs the changes, and warns of those that need a restart.
    """
    before = CONF._mutable_ns
    try:
        CONF.mutate_config_files()
        _read_all()
    except (
        cfg.Error,
        logging.LogConfigError,
        ValueError,
        SystemExit,
    ) as error:
        # oslo.config checks a value when an option is read, and would fail
        # there.
        CONF._mutable_ns = before
        LOG.error('The configuration was not changed: %s', error)
    else:
        LOG.info('The configuration was read again')


def _read_all() -> None:
    """Read each of our options.

    :raises ValueError: an option has an invalid value
    """
    for group, options in conf.list_opts():
        for option in options:
            CONF[group.name][option.dest]
