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

import contextlib

from oslo_config import cfg
from oslo_config import types
from oslo_utils import netutils

from guest_agent_ext import command


class HostPort(types.ConfigType):
    """An address to listen at, as a pair of host and port."""

    def __init__(self) -> None:
        super().__init__(type_name='host:port')

    def __call__(self, value: object) -> tuple[str, int]:
        with contextlib.suppress(ValueError):
            host, port = netutils.parse_host_port(str(value))
            if host and netutils.is_valid_port(port):
                return host, int(port)
        raise ValueError(
            'must be host:port, for example 127.0.0.1:9177 or '
            '[::1]:9177, not %s' % value
        )

    def _formatter(self, value: tuple[str, int]) -> str:
        host, port = value
        return '%s:%s' % (netutils.escape_ipv6(host), port)


GROUP = cfg.OptGroup(
    'guest_agent',
    title='Guest agent commands',
    help="""
Options of the commands that users run in servers through the QEMU guest agent.

nova-api, guest-agent-conductor and guest-agent-compute read them from
``nova.conf``. The help of an option names the services that need it.
""",
)

API_OPTS = [
    cfg.IntOpt(
        'default_timeout',
        default=3600,
        min=1,
        max=command.MAX_TIMEOUT,
        help="""
Seconds that a command may run if its request has no ``timeout``. After that
the command and all its child processes are killed, and it ends as TIMED_OUT.
Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'default_start_timeout',
        default=300,
        min=1,
        max=command.MAX_TIMEOUT,
        help="""
Seconds within which a command must start if its request has no
``start_timeout``. A command that has not started by then ends as FAILED and
never starts. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_unfinished_per_server',
        default=100,
        min=1,
        help="""
Maximum number of unfinished commands of one server. Further commands are
refused with 429; those of runs wait. Read by nova-api and
guest-agent-conductor.
""",
    ),
    cfg.IntOpt(
        'max_unfinished_per_project',
        default=1000,
        min=-1,
        help="""
Maximum number of unfinished commands of all servers of one project, -1 for no
limit. Further commands are refused with 403; those of runs wait.

If ``[quota] driver`` is ``nova.quota.UnifiedLimitsDriver``, the limit of the
resource ``guest_agent_commands`` in Keystone is used instead. Read by nova-api
and guest-agent-conductor.
""",
    ),
    cfg.IntOpt(
        'max_attached_per_server',
        default=8,
        min=0,
        help="""
Maximum number of unfinished attached commands of one server, which clients
stream stdin to and output from. They may be idle for hours, and do not count
for ``max_running_per_server``. Further ones are refused with 429; 0 permits
none. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_attached_per_host',
        default=100,
        min=0,
        help="""
Maximum number of unfinished attached commands of all servers of one host.
Further ones are refused with 429; 0 permits none. Requests of several projects
that come at once may exceed it by a few. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_run_targets',
        default=1000,
        min=1,
        max=100_000,
        help="""
Maximum number of servers of one run, which runs a command in each of them.
Larger runs are refused with 400. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_runs_per_project',
        default=20,
        min=-1,
        help="""
Maximum number of runs of one project that have not ended, -1 for no limit.
Further runs are refused with 403. The commands of a run count for
``max_unfinished_per_server`` and ``max_unfinished_per_project`` when they are
released; where one of these is reached, a run waits. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'service_down_time',
        default=60,
        min=1,
        help="""
Seconds after its last heartbeat until the guest-agent-compute of a host counts
as down. New commands for servers on such a host are refused with 409. Set it
to several times ``report_interval``, and to the same value for nova-api and
guest-agent-conductor.
""",
    ),
    cfg.FloatOpt(
        'cell_timeout',
        default=5.0,
        min=0.1,
        help="""
Seconds that a request waits for the database of a server's cell before it is
answered with 409. A process reads at most eight servers of one cell at once,
including reads whose requests have timed out; a cell that does not answer
delays no requests for servers of other cells. guest-agent-conductor waits as
long when it releases the commands of runs. Read by nova-api and
guest-agent-conductor.
""",
    ),
    cfg.IntOpt(
        'max_wait',
        default=30,
        min=0,
        help="""
Maximum number of seconds that a request with ``Prefer: wait=N`` waits for the
end of its command or run. Set it below the timeouts of proxies and load
balancers in front of nova-api. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_waiters',
        min=0,
        help="""
Maximum number of requests with ``Prefer: wait=N`` that wait in one process of
nova-api at once. Each occupies a thread of the web server. Further requests
are answered without waiting.

The default is half of the threads of the process: ``threads`` of uwsgi, or
``threads`` of the daemon process of mod_wsgi. Other web servers do not tell
their number of threads, and eight are assumed if they serve requests in
threads. A process with a single thread lets no request wait, whatever the
value.
""",
    ),
    cfg.IntOpt(
        'max_transfers',
        min=1,
        help="""
Maximum number of files that one process of nova-api transfers at once. Each
transfer occupies a thread of the web server. Further transfers are refused
with 429. The default is half of the threads of the process, as for
``max_waiters``, but at least one.
""",
    ),
    cfg.IntOpt(
        'transfer_timeout',
        default=3600,
        min=1,
        max=command.MAX_TIMEOUT,
        help="""
Seconds that the transfer of one file may take. After that it ends as
TIMED_OUT. Read by nova-api.
""",
    ),
    cfg.IntOpt(
        'max_file_size',
        default=1024**3,
        min=0,
        help="""
Maximum size of a file that is written to a server, in bytes. A larger file is
refused with 413. Read by nova-api.
""",
    ),
]

CONDUCTOR_OPTS = [
    cfg.IntOpt(
        'outage_grace',
        default=600,
        min=0,
        mutable=True,
        help="""
Seconds after the timeout of a running command that guest-agent-conductor waits
for its host to report the end. If guest-agent-compute is back within this
time, it still delivers the result. After that the command ends as LOST.
""",
    ),
    cfg.IntOpt(
        'sweep_interval',
        default=10,
        min=1,
        help="""
Seconds between two passes of guest-agent-conductor. A pass ends overdue
commands, moves commands of servers that were moved to another host or have got
their first one, and writes outstanding instance actions and notifications.
""",
    ),
    cfg.IntOpt(
        'cells_interval',
        default=60,
        min=1,
        help="""
Seconds between two reads of Nova's cell mappings by guest-agent-conductor,
which then serves new cells and no longer serves removed ones.
""",
    ),
    cfg.IntOpt(
        'retention',
        default=86400,
        min=60,
        mutable=True,
        help="""
Seconds that a command and its output are kept after its end, those of a run
after the end of the run. After that guest-agent-conductor removes them. It
also removes commands of servers that Nova has forgotten
(``nova-manage db archive_deleted_rows``). Read by
guest-agent-conductor and ``guest-agent-manage purge``.
""",
    ),
    cfg.IntOpt(
        'max_kept_per_server',
        default=10_000,
        min=-1,
        help="""
Maximum number of commands of one server that are kept, within ``retention``;
-1 for no limit. The oldest commands that have ended are removed first. Checked
every ten minutes by guest-agent-conductor, as are the other ``max_kept``
options.
""",
    ),
    cfg.IntOpt(
        'max_kept_per_project',
        default=100_000,
        min=-1,
        help="""
Maximum number of commands of all servers of one project that are kept; -1 for
no limit. See ``max_kept_per_server``.
""",
    ),
    cfg.IntOpt(
        'max_kept_bytes_per_server',
        default=1024**3,
        min=-1,
        help="""
Maximum number of bytes of arguments and output of the commands of one server
that are kept; -1 for no limit. See ``max_kept_per_server``.
""",
    ),
    cfg.IntOpt(
        'max_kept_bytes_per_project',
        default=10 * 1024**3,
        min=-1,
        help="""
Maximum number of bytes of arguments and output of the commands of all servers
of one project that are kept; -1 for no limit. See ``max_kept_per_server``.
""",
    ),
    cfg.IntOpt(
        'max_kept_runs_per_project',
        default=1000,
        min=-1,
        help="""
Maximum number of runs of one project that are kept, within ``retention``; -1
for no limit. The oldest that have ended are removed first, with their
commands. Checked every minute by guest-agent-conductor.
""",
    ),
    cfg.BoolOpt(
        'record_instance_actions',
        default=True,
        mutable=True,
        help="""
Whether to record an instance action of the server for each command, such as
``guest_agent_exec``, with state and exit code but without arguments and
output. guest-agent-conductor writes it to the database of the server's cell
shortly after the command has started or ended. If that fails, it is repeated
and the command is not affected.
""",
    ),
]

COMPUTE_OPTS = [
    cfg.StrOpt(
        'connection_uri',
        sample_default='the value of [libvirt] connection_uri',
        help="""
URI of the libvirt connection that guest-agent-compute opens. It must be the
one that nova-compute uses on this host. The default is ``[libvirt]
connection_uri``, or ``qemu:///system`` if that is not set either.
""",
    ),
    cfg.IntOpt(
        'report_interval',
        default=10,
        min=1,
        mutable=True,
        help="""
Seconds between two reports of guest-agent-compute to guest-agent-conductor. A
report is the heartbeat of the service and asks for work, so this is also the
longest time that a command waits if its doorbell message was lost.
""",
    ),
    cfg.IntOpt(
        'conductor_timeout',
        default=10,
        min=1,
        help="""
Seconds that guest-agent-compute waits for an answer of guest-agent-conductor
before it repeats the call.
""",
    ),
    cfg.IntOpt(
        'agent_timeout',
        default=5,
        min=1,
        max=30,
        help="""
Seconds that guest-agent-compute waits for the answer of a guest agent to one
call. A guest that does not answer in time gets no further work until it has
answered a ping, for which it has one second.
""",
    ),
    cfg.IntOpt(
        'agent_calls',
        default=4,
        min=1,
        max=8,
        help="""
Maximum number of agent calls that guest-agent-compute has under way at once,
over all guests of its host. Each uses a connection to libvirtd of its own and,
while the guest does not answer, one of the worker threads of libvirtd
(``max_workers``, 20 by default) that nova-compute needs too.
""",
    ),
    cfg.IntOpt(
        'max_running_per_server',
        default=8,
        min=1,
        mutable=True,
        help="""
Maximum number of commands that guest-agent-compute runs in one server at once.
Further commands wait as PENDING.
""",
    ),
    cfg.IntOpt(
        'max_transfers_per_host',
        default=8,
        min=1,
        mutable=True,
        help="""
Maximum number of files that guest-agent-compute transfers at once, over all
servers of its host. Further transfers are refused with 429. Each has at most
two chunks of 256 KiB under way on the cell's message queue, which nova-compute
uses too. The more transfers there are, the longer are the pauses between their
chunks.
""",
    ),
    cfg.IntOpt(
        'transfer_grace',
        # Longer than nova-api waits for an answer, after which it asks again.
        default=60,
        min=20,
        mutable=True,
        help="""
Seconds without a request of nova-api until guest-agent-compute ends a file
transfer, because the client sends or takes nothing or nova-api was stopped. A
guest that does not answer has the same time to close and remove what a failed
transfer has left open there.
""",
    ),
    cfg.IntOpt(
        'max_lanes',
        default=512,
        min=1,
        mutable=True,
        help="""
Maximum number of servers that guest-agent-compute works for at once. Each
needs one thread while it has work. Commands of further servers wait as
PENDING.
""",
    ),
    cfg.IntOpt(
        'attach_timeout',
        default=300,
        min=10,
        mutable=True,
        help="""
Seconds without a request of a client until guest-agent-compute cancels an
attached command, unless its request said ``detach``. A command that has ended
by itself is recorded then, whether its output was read or not. A service that
was restarted begins to count anew.
""",
    ),
    cfg.IntOpt(
        'kill_grace',
        default=10,
        min=0,
        mutable=True,
        help="""
Seconds between SIGTERM and SIGKILL when a command is cancelled or its timeout
has passed. Set it to the same value for guest-agent-compute and
guest-agent-conductor.
""",
    ),
    cfg.FloatOpt(
        'background_grace',
        default=5.0,
        min=0.0,
        mutable=True,
        help="""
Seconds that guest-agent-compute waits after the process of a command has
ended, if child processes still have its stdout or stderr open. After that the
command ends as COMPLETED with the output so far.
""",
    ),
    cfg.BoolOpt(
        'allow_unbounded_capture',
        default=False,
        help="""
Whether guest-agent-compute runs commands by ``guest-exec`` alone in guests
where no launcher works, which have neither ``/bin/sh`` and ``/proc`` nor
Windows PowerShell. Otherwise commands in such guests end as FAILED.

Consider the risks before you enable it. Nothing limits the output inside the
guest: if a command writes more than about 3 MiB, its output and exit code are
lost, and beyond about 7.8 MiB libvirt gives up the guest's agent, for all its
users, until the server is reset. A command is never sent again, and it ends as
LOST if guest-agent-compute is restarted or the server is moved. A command that
is cancelled or whose timeout passes is not killed; it runs on and ends as
LOST. ``cwd`` and ``env`` are refused.
""",
    ),
    cfg.IntOpt(
        'drain_timeout',
        default=30,
        min=0,
        mutable=True,
        help="""
Seconds that guest-agent-compute takes on SIGTERM to finish the agent and
conductor calls that are under way. Commands go on running in their guests, and
the service resumes them when it is started again.
""",
    ),
]

SERVICE_OPTS = [
    cfg.Opt(
        'metrics_bind',
        type=HostPort(),
        sample_default='127.0.0.1:9177',
        help="""
Host and port at which guest-agent-conductor and guest-agent-compute serve
their metrics to Prometheus, at ``/metrics``. An IPv6 address is written in
brackets. By default no port is opened.

Everyone who can reach the port can read the metrics: it has neither a password
nor TLS. They contain numbers of commands and servers, but no data of tenants.
If both services run on one machine, each needs a port of its own.
""",
    )
]

OPTS = API_OPTS + CONDUCTOR_OPTS + COMPUTE_OPTS + SERVICE_OPTS


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_group(GROUP)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]
