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

"""The kinds of faults, each with what it can be done to."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import dataclasses
import signal
import time
from typing import Any

from tools.faults import liar
from tools.faults import load
from tools.faults import world as fault_world
from tools.testbed import processes

#: Seconds that a clock is set forward, and back again: more than any timeout.
CLOCK_STEP = 7200

#: What runs in a guest that is to be harmed, by its own agent.
_STOP_AGENT = (
    'a=$(pidof qemu-ga); sleep 0.2; kill -STOP $a; sleep %d; kill -CONT $a'
)
_KILL_AGENT = 'sleep 0.2; kill -9 $(pidof qemu-ga)'
_KILL_LAUNCHERS = (
    'cd /run/guest-agent; for f in *; do case $f in *.*) ;; '
    '*) read _ _ launcher _ <$f; kill -9 $launcher ;; '
    'esac; done'
)
#: What is done to the directory of commands, for so many seconds.
_HARM = {
    'remove': 'rm -rf /run/guest-agent; sleep %d',
    'empty': 'rm -f /run/guest-agent/*; sleep %d',
    'cover': 'mount -t tmpfs none /run/guest-agent; sleep %d; '
    'umount -l /run/guest-agent',
    'rename': 'mv /run/guest-agent /run/away; sleep %d; '
    'rm -rf /run/guest-agent; mv /run/away /run/guest-agent',
    'close': 'chmod 0 /run/guest-agent; sleep %d; chmod 700 /run/guest-agent',
}
_STEP_CLOCK = (
    'date -s @$(($(date +%%s) %+d)); sleep %d; date -s @$(($(date +%%s) %+d))'
)
_FILL_RUN = 'dd if=/dev/zero of=/run/full bs=64k; sleep %d; rm /run/full'


@dataclasses.dataclass(frozen=True)
class Kind:
    """What can be done.

    :ivar target: ``program``, ``machine``, ``host``, ``guest``, ``broker``,
        ``database``
    :ivar do: does it, and undoes it after so many seconds
    :ivar seconds: shortest and longest duration
    :ivar may_lose: whether a command that ran in this guest may be LOST by it,
        or one that it started
    :ivar reboots: whether what was in the guest's memory is gone by it
    """

    target: str
    do: Callable[[fault_world.World, str, float], None]
    seconds: tuple[float, float] = (0.0, 0.0)
    may_lose: bool = False
    reboots: bool = False


def _kill_program(world: fault_world.World, name: str, _: float) -> None:
    world.programs[name].process.kill()


def _end_program(world: fault_world.World, name: str, _: float) -> None:
    world.programs[name].process.signal(signal.SIGTERM)


def _pause_program(
    world: fault_world.World, name: str, seconds: float
) -> None:
    process = world.programs[name].process
    process.pause()
    time.sleep(seconds)
    process.resume()


def _start_host_twice(world: fault_world.World, name: str, _: float) -> None:
    world.programs[name].start_beside()


def _step_clock(
    world: fault_world.World, machine: str, seconds: float
) -> None:
    world.set_clock(machine, CLOCK_STEP)
    time.sleep(seconds)
    world.set_clock(machine, 0)


def _restart_broker(world: fault_world.World, _: str, seconds: float) -> None:
    world.broker.stop()
    time.sleep(seconds)
    world.broker.start()


def _kill_broker(world: fault_world.World, _: str, seconds: float) -> None:
    world.broker.process.kill()
    time.sleep(seconds)
    world.broker.start()


def _pause_broker(world: fault_world.World, _: str, seconds: float) -> None:
    world.broker.process.pause()
    time.sleep(seconds)
    world.broker.process.resume()


def _cut_broker(world: fault_world.World, _: str, __: float) -> None:
    world.broker.close_connections()


def _restart_database(
    world: fault_world.World, _: str, seconds: float
) -> None:
    world.database.stop()
    time.sleep(seconds)
    world.database.start()


def _kill_database(world: fault_world.World, _: str, seconds: float) -> None:
    world.database.process.kill()
    time.sleep(seconds)
    world.database.start()


def _pause_database(world: fault_world.World, _: str, seconds: float) -> None:
    world.database.process.pause()
    time.sleep(seconds)
    world.database.process.resume()


def _cut_database(world: fault_world.World, _: str, seconds: float) -> None:
    """Kill all connections to the database, again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.closing(world.database.connect('mysql')) as opened:
            cursor = opened.cursor()
            cursor.execute(
                'SELECT id FROM information_schema.processlist '
                "WHERE user = 'testbed' AND id <> connection_id()"
            )
            for (number,) in cursor.fetchall():
                with contextlib.suppress(Exception):
                    cursor.execute(f'KILL {int(number)}')
        time.sleep(0.3)


def _restart_libvirtd(
    world: fault_world.World, host: str, seconds: float
) -> None:
    hypervisor = world.hosts[host].hypervisor
    hypervisor.process.stop()
    time.sleep(seconds)
    hypervisor.start()


def _kill_libvirtd(
    world: fault_world.World, host: str, seconds: float
) -> None:
    hypervisor = world.hosts[host].hypervisor
    hypervisor.process.kill()
    time.sleep(seconds)
    hypervisor.start()


def _pause_libvirtd(
    world: fault_world.World, host: str, seconds: float
) -> None:
    process = world.hosts[host].hypervisor.process
    process.pause()
    time.sleep(seconds)
    process.resume()


def _in_guest(world: fault_world.World, name: str, script: str) -> None:
    host, guest = world.guests[name]
    # Detached: it outlives the agent that started it.
    host.run(guest, 'setsid sh -c "$0" >/dev/null 2>&1 &', script)


def _stop_agent(world: fault_world.World, guest: str, seconds: float) -> None:
    _in_guest(world, guest, _STOP_AGENT % seconds)
    time.sleep(seconds)


def _kill_agent(world: fault_world.World, guest: str, _: float) -> None:
    _in_guest(world, guest, _KILL_AGENT)


def _kill_launchers(world: fault_world.World, guest: str, _: float) -> None:
    _in_guest(world, guest, _KILL_LAUNCHERS)


def _step_clock_of_guest(
    world: fault_world.World, guest: str, seconds: float
) -> None:
    _in_guest(world, guest, _STEP_CLOCK % (CLOCK_STEP, seconds, -CLOCK_STEP))
    time.sleep(seconds)


def _fill_run(world: fault_world.World, guest: str, seconds: float) -> None:
    _in_guest(world, guest, _FILL_RUN % seconds)
    time.sleep(seconds)


def _harm(how: str) -> Callable[[fault_world.World, str, float], None]:
    """Return what harms the directory of commands in a guest."""

    def harm(world: fault_world.World, guest: str, seconds: float) -> None:
        _in_guest(world, guest, _HARM[how] % seconds)
        time.sleep(seconds)

    return harm


def _pause_qemu(world: fault_world.World, name: str, seconds: float) -> None:
    host, guest = world.guests[name]
    process = host.hypervisor.qemu(guest)
    process.pause()
    time.sleep(seconds)
    process.resume()


def _pause_guest(world: fault_world.World, name: str, seconds: float) -> None:
    host, guest = world.guests[name]
    host.hypervisor.domain(guest).suspend()
    time.sleep(seconds)
    _insist(lambda: host.hypervisor.domain(guest).resume())


def _reset_guest(world: fault_world.World, name: str, _: float) -> None:
    host, guest = world.guests[name]
    host.hypervisor.domain(guest).reset()


def _destroy_guest(
    world: fault_world.World, name: str, seconds: float
) -> None:
    host, guest = world.guests[name]
    host.hypervisor.domain(guest).destroy()
    time.sleep(seconds)
    _insist(lambda: host.hypervisor.boot(guest))
    # A guest that is reset while its firmware starts may hang there.
    host.hypervisor.wait(guest)


def _insist(undo: Callable[[], object]) -> None:
    """Undo a fault, though libvirtd may be away by another."""

    def is_undone() -> bool:
        try:
            undo()
        except fault_world.LIBVIRT_ERROR:
            return False
        return True

    processes.wait_for(is_undone, 60, 'libvirtd')


#: A second or a few, and as long as calls may take.
_SHORT, _LONG = (0.5, 3.0), (1.0, 9.0)
#: Longer than the tickets of the load's commands hold.
_PAST_TICKET = (load.START_TIMEOUT + 1.0, load.START_TIMEOUT + 5.0)

#: Those that end a service that cannot clean up before.
ENDS_PROGRAMS = ('kill-program', 'end-program', 'start-host-twice')

KINDS: Mapping[str, Kind] = {
    'kill-program': Kind('program', _kill_program),
    'end-program': Kind('program', _end_program),
    'pause-program': Kind('program', _pause_program, _LONG),
    'start-host-twice': Kind('host', _start_host_twice),
    'lie': Kind('host', liar.lie, _LONG),
    'step-clock': Kind('machine', _step_clock, _LONG),
    'restart-broker': Kind('broker', _restart_broker, _SHORT),
    'kill-broker': Kind('broker', _kill_broker, _SHORT),
    'pause-broker': Kind('broker', _pause_broker, _LONG),
    'cut-broker': Kind('broker', _cut_broker),
    'restart-database': Kind('database', _restart_database, _SHORT),
    'kill-database': Kind('database', _kill_database, _SHORT),
    'pause-database': Kind('database', _pause_database, _LONG),
    'cut-database': Kind('database', _cut_database, _SHORT),
    'restart-libvirtd': Kind('host', _restart_libvirtd, _SHORT),
    'kill-libvirtd': Kind('host', _kill_libvirtd, _SHORT),
    'pause-libvirtd': Kind('host', _pause_libvirtd, _LONG),
    'stop-agent': Kind('guest', _stop_agent, _LONG),
    'stop-agent-past-ticket': Kind('guest', _stop_agent, _PAST_TICKET),
    'kill-agent': Kind('guest', _kill_agent),
    'kill-launchers': Kind('guest', _kill_launchers, may_lose=True),
    'step-clock-of-guest': Kind('guest', _step_clock_of_guest, _LONG),
    'fill-run': Kind('guest', _fill_run, _SHORT, may_lose=True),
    **{
        f'{how}-directory': Kind('guest', _harm(how), _SHORT, may_lose=True)
        for how in _HARM
    },
    'pause-qemu': Kind('guest', _pause_qemu, _LONG),
    'pause-guest': Kind('guest', _pause_guest, _LONG),
    'pause-guest-past-ticket': Kind('guest', _pause_guest, _PAST_TICKET),
    'reset-guest': Kind('guest', _reset_guest, may_lose=True, reboots=True),
    'destroy-guest': Kind(
        'guest', _destroy_guest, _SHORT, may_lose=True, reboots=True
    ),
}


def do(
    world: fault_world.World, kind: str, target: str, seconds: float
) -> str | None:
    """Do a fault.

    :returns: why it could not be done, for instance because of another fault
        that was being done; None if it was
    """
    try:
        KINDS[kind].do(world, target, seconds)
    except (fault_world.LIBVIRT_ERROR, processes.StartError) as error:
        return f'{type(error).__name__}: {error}'
    return None


def targets(world: fault_world.World) -> dict[str, Any]:
    """Return what each kind of target there is."""
    return {
        'program': list(world.programs),
        'machine': world.machines,
        'host': list(world.hosts),
        'guest': list(world.guests),
        'broker': ['broker'],
        'database': ['database'],
    }
