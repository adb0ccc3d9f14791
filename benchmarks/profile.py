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

"""Where the CPU of a service goes, by py-spy."""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

from tools.testbed import processes

#: Looks in a second. Services go on meanwhile: to stop one that has a hundred
#: threads costs more than it does.
_RATE = 20
#: Of shares, how many are told.
_TOLD = 6
#: The package that a frame's file is in.
_PACKAGE = re.compile(
    r'(?:site-packages/|/)(guest_agent_ext|(?<=packages/)'
    r'[a-z_0-9]+)/'
)


@contextlib.contextmanager
def of(
    services: Mapping[str, processes.Process],
) -> Iterator[dict[str, dict[str, str]]]:
    """Look at what services do, some times in a second.

    Threads that have no interpreter are left out: they wait, or are in
    libvirt.

    :returns: filled at the end: of each, which package had how much of its
        CPU; what the standard library does is its caller's
    """
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        spies = {
            service: (
                pathlib.Path(name, service),
                subprocess.Popen(
                    [
                        os.path.join(sys.prefix, 'bin/py-spy'),
                        'record',
                        '--pid',
                        str(process.pid),
                        '--gil',
                        '--nonblocking',
                        '--rate',
                        str(_RATE),
                        '--format',
                        'raw',
                        '--full-filenames',
                        '--duration',
                        '600',
                        '--output',
                        os.path.join(name, service),
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                ),
            )
            for service, process in services.items()
        }
        yield found
        for service, (path, spy) in spies.items():
            spy.send_signal(signal.SIGINT)
            spy.wait()
            found[f'CPU of {service}'] = _shares(path.read_text())


def _shares(stacks: str) -> dict[str, str]:
    """Read lines of frames from the outermost to the innermost, and counts."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(' ')
        packages = _PACKAGE.findall(frames)
        counts[packages[-1] if packages else 'python'] += int(count)
    total = sum(counts.values())
    return {
        package: f'{count / total:.0%}'
        for package, count in counts.most_common(_TOLD)
    }
