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
#
# Makes a terminal in a guest, and copies between it and the launcher's pipes
# until nobody has it open any more. Then it holds the terminal until the
# command has ended: many programs close their streams before they exit, and a
# hangup would kill them in between.
#
# Descriptors: 0 what is typed; 1 what is shown; 3 "opened" when the command
# has the terminal, "end" when it is to end although somebody still has it; 7
# takes this process's id and the terminal's name. It runs in the oldest
# Python 3 of a guest, alone, and not as a module.
import _thread
import contextlib
import os
import select

QUIET = 100  # milliseconds


def write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def copy_input(master: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = os.read(0, 4096)
            if not data:
                return
            write(master, data)


def copy_output(master: int, slave: int) -> None:
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(3, select.POLLIN)
    ending = False
    while True:
        ready = dict(poll.poll(QUIET if ending else None))
        if 3 in ready:
            ending = ending or b'end' in os.read(3, 100)
            if slave >= 0:
                os.close(slave)
                slave = -1
        if master in ready:
            try:
                data = os.read(master, 65536)
            except OSError:  # Nobody has the terminal open.
                break
            write(1, data)
        elif ending and not ready:
            break
    os.close(1)
    while not ending:
        ending = b'end' in os.read(3, 100)


def main() -> None:
    master, slave = os.openpty()
    os.write(7, ('%d %s\n' % (os.getpid(), os.ttyname(slave))).encode())
    os.close(7)
    _thread.start_new_thread(copy_input, (master,))
    with contextlib.suppress(OSError):
        copy_output(master, slave)
    os._exit(0)


main()
