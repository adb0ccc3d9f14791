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

from typing import Any

from oslo_config import cfg

from guest_agent_ext import command

GROUP = cfg.OptGroup(
    'guest_agent',
    title='Guest agent commands',
    help="""
Commands that tenants run inside their servers through the QEMU guest agent.

The API options are read by nova-api, the others by guest-agent-conductor and
guest-agent-compute, as each says.
""",
)

API_OPTS = [
    cfg.IntOpt(
        'default_timeout',
        default=3600,
        min=1,
        max=command.MAX_TIMEOUT,
        help="""
Seconds that a command may run when its request names no ``timeout``. After
that its whole process tree is killed and it ends as TIMED_OUT. Read by
nova-api.
""",
    ),
    cfg.IntOpt(
        'default_start_timeout',
        default=300,
        min=1,
        max=command.MAX_TIMEOUT,
        help="""
Seconds within which a command must start when its request names no
``start_timeout``. A command that has not started by then ends as FAILED and
will never start. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_unfinished_per_server',
        default=100,
        min=1,
        help="""
Unfinished commands that one server may have. Beyond that a new one is refused
with 429. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_unfinished_per_project',
        default=1000,
        min=-1,
        help="""
Unfinished commands that the servers of one project may have together, -1 for
any number. Beyond that a new one is refused with 403.

Where ``[quota] driver`` is ``nova.quota.UnifiedLimitsDriver``, Keystone's
limit of the resource ``guest_agent_commands`` holds instead. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'service_down_time',
        default=60,
        min=1,
        help="""
Seconds after its last heartbeat from which a host's guest-agent-compute counts
as down. New commands for servers on such a host are refused with 409. Keep it
at several times ``report_interval``, and the same on nova-api and on
guest-agent-conductor.
""",
    ),
    cfg.FloatOpt(
        'cell_timeout',
        default=5.0,
        min=0.1,
        help="""
Seconds that a request waits for the database of a server's cell before it is
answered with 409, cell down. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_wait',
        default=30,
        min=0,
        help="""
Seconds that a request with ``Prefer: wait=N`` waits at most for the end of its
command. Keep it below the timeouts of what stands before nova-api. Read by
nova-api.
""",
    ),
    cfg.IntOpt(
        'max_waiters',
        min=0,
        help="""
Requests with ``Prefer: wait=N`` that may wait in one process of nova-api at
once; each occupies a thread of the server. Beyond that they are answered at
once. By default half of the threads that the process has: under uwsgi its
``threads``, under mod_wsgi the ``threads`` of the daemon process. Other
servers do not tell; those that serve requests in threads are taken to have
eight. Where a process has one thread none wait, whatever is set here.
""",
    ),
    cfg.IntOpt(
        'max_transfers',
        min=1,
        help="""
Files that one process of nova-api reads or writes at once; each occupies a
thread of the server. Further requests are refused with 429. By default half of
the threads that the process has, as with ``max_waiters``, but at least one.
""",
    ),
    cfg.IntOpt(
        'transfer_timeout',
        default=3600,
        min=1,
        max=command.MAX_TIMEOUT,
        help="""
Seconds that the reading or writing of one file may take. After that it ends as
TIMED_OUT. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_file_size',
        default=1024**3,
        min=0,
        help="""
Bytes that a file may have that is written to a server. A larger one is refused
with 413. Read by nova-api.
""",
    ),
]

CONDUCTOR_OPTS = [
    cfg.IntOpt(
        'outage_grace',
        default=600,
        min=0,
        help="""
Seconds that a running command is given beyond its timeout for its host to
report: a guest-agent-compute that returns within this time still delivers the
result. After that guest-agent-conductor ends the command as LOST.
""",
    ),
    cfg.IntOpt(
        'sweep_interval',
        default=10,
        min=1,
        help="""
Seconds between two looks of guest-agent-conductor for commands that are
overdue, for servers that have moved to another host, and for commands whose
instance action and notification are to be written.
""",
    ),
    cfg.IntOpt(
        'cells_interval',
        default=60,
        min=1,
        help="""
Seconds after which guest-agent-conductor reads Nova's cell mappings again, to
serve new cells and to leave those that are gone.
""",
    ),
    cfg.IntOpt(
        'retention',
        default=86400,
        min=60,
        help="""
Seconds that a command is kept after its end, with its output. After that
guest-agent-conductor removes it, and when Nova has forgotten its server
(``nova-manage db archive_deleted_rows``). Read by guest-agent-conductor and by
``guest-agent-manage purge``.
""",
    ),
    cfg.BoolOpt(
        'record_instance_actions',
        default=True,
        help="""
Whether each command leaves an instance action on its server:
``guest_agent_exec``, with state and exit code, never with arguments or output.
Read by guest-agent-conductor, which writes it to the database of the server's
cell a moment after the command has started or ended. A failure to write it
never fails a command; it is tried again.
""",
    ),
]

COMPUTE_OPTS = [
    cfg.StrOpt(
        'connection_uri',
        default='qemu:///system',
        help="""
The libvirt connection that guest-agent-compute opens. It must be the one that
nova-compute uses on this host (``[libvirt] connection_uri``, where that is
set).
""",
    ),
    cfg.IntOpt(
        'report_interval',
        default=10,
        min=1,
        help="""
Seconds between two reports of guest-agent-compute to its conductor. A report
is heartbeat, reconciliation and pick-up of missed work at once, so this is
also the longest that a command waits when its doorbell was lost.
""",
    ),
    cfg.IntOpt(
        'conductor_timeout',
        default=10,
        min=1,
        help="""
Seconds that guest-agent-compute waits for one answer of its conductor before
it asks again.
""",
    ),
    cfg.IntOpt(
        'agent_timeout',
        default=5,
        min=1,
        max=30,
        help="""
Seconds that guest-agent-compute waits for a guest agent's answer to one call.
A guest that does not answer in time gets no further work until it has answered
a ping of one second.
""",
    ),
    cfg.IntOpt(
        'agent_calls',
        default=4,
        min=1,
        max=8,
        help="""
Agent calls of guest-agent-compute that are under way at once, over all guests
of its host. Each has a connection to libvirtd of its own and, while it waits
for its guest, one of the workers of libvirtd (``max_workers``, 20 by default)
that nova-compute needs too.
""",
    ),
    cfg.IntOpt(
        'max_running_per_server',
        default=8,
        min=1,
        help="""
Commands that guest-agent-compute runs in one server at once. Further ones wait
as PENDING.
""",
    ),
    cfg.IntOpt(
        'max_transfers_per_host',
        default=8,
        min=1,
        help="""
Files that guest-agent-compute reads or writes at once, over all servers of its
host. Further requests are refused with 429. Each has at most two chunks of
256 KiB in flight on the cell's message queue, which nova-compute uses too, and
the more there are, the more room is left between their chunks.
""",
    ),
    cfg.IntOpt(
        'transfer_grace',
        # Longer than nova-api waits for an answer, after which it asks again.
        default=60,
        min=20,
        help="""
Seconds after which guest-agent-compute ends a file transfer that nova-api has
not gone on with: its client sends or takes nothing, or nova-api has ended. The
same time is given to a guest that does not answer, to close and remove what a
transfer that has failed has left open there.
""",
    ),
    cfg.IntOpt(
        'max_lanes',
        default=512,
        min=1,
        help="""
Servers that guest-agent-compute works for at once; each takes one thread while
it has work. Commands of further servers wait as PENDING.
""",
    ),
    cfg.IntOpt(
        'kill_grace',
        default=10,
        min=0,
        help="""
Seconds between SIGTERM and SIGKILL when a command is cancelled or its timeout
has passed. Keep it the same on guest-agent-compute and on
guest-agent-conductor.
""",
    ),
    cfg.FloatOpt(
        'background_grace',
        default=5.0,
        min=0.0,
        help="""
Seconds that a command whose own process has ended is given for children of its
that still hold its stdout or stderr open. After that it ends as COMPLETED with
the output there is.
""",
    ),
    cfg.BoolOpt(
        'allow_unbounded_capture',
        default=False,
        help="""
Whether guest-agent-compute runs commands by ``guest-exec`` alone in guests
where no launcher works: those that have neither ``/bin/sh`` and ``/proc`` nor
Windows PowerShell. Otherwise commands there end as FAILED.

Before you permit it, know the risks. Nothing bounds the output inside the
guest: when a command writes more than about 3 MiB, its output and its exit
code are lost, and beyond about 7.8 MiB libvirt gives the guest's agent up, for
every caller, until the server is reset. A command is never sent again, and not
resumed when guest-agent-compute was restarted or the server moved: it ends as
LOST. A command that is cancelled or whose timeout passes is not killed; it
runs on and ends as LOST. ``cwd`` and ``env`` are refused.
""",
    ),
    cfg.IntOpt(
        'drain_timeout',
        default=30,
        min=0,
        help="""
Seconds that guest-agent-compute takes on SIGTERM to finish the agent and
conductor calls under way. Commands that are running go on in their guests and
are resumed by the next start of the service.
""",
    ),
]

OPTS = API_OPTS + CONDUCTOR_OPTS + COMPUTE_OPTS


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[cfg.OptGroup, list[Any]]]:
    return [(GROUP, OPTS)]
