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

"""The tables, which the migrations in ``db/migrations`` create.

They have no foreign keys to Nova's tables, because they may be in another
database.
"""

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext.db import sqltypes

#: Cell or host of a command whose server has none yet.
NOWHERE = ''


class Base(orm.DeclarativeBase):
    """The base class of all tables."""

    type_annotation_map = {
        datetime.datetime: sqltypes.DateTime,
        dict[str, Any]: sa.JSON(none_as_null=True),
        bytes: sqltypes.Blob,
        int: sa.BigInteger(),
    }


def table_of(model: type[Base]) -> sa.Table:
    """Return the table of a model, for statements without the ORM."""
    table = model.__table__
    assert isinstance(table, sa.Table)
    return table


class Command(Base):
    """One command: the request, its state and its result."""

    __tablename__ = 'guest_agent_commands'

    # SQLite counts up only an INTEGER primary key.
    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    type: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    status: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    created_at: orm.Mapped[datetime.datetime]
    updated_at: orm.Mapped[datetime.datetime | None]
    started_at: orm.Mapped[datetime.datetime | None]
    finished_at: orm.Mapped[datetime.datetime | None]

    #: Who sent the request.
    project_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    user_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    request_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))

    #: The run that the command is of, if any; and the same once it has ended,
    #: until a conductor has counted its end. The run is due then.
    run_uuid: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    run_due: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))

    instance_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    #: The server's project, whose quota counts the command.
    instance_project_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    #: Where the server was when last seen, or NOWHERE. This finds the work of
    #: a host; which host may change the row is decided by ``instance.host``,
    #: which the conductor reads in the cell.
    cell_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    host: orm.Mapped[str] = orm.mapped_column(sa.String(255))

    #: The request, as users may see it: names of the environment, not its
    #: values; the size of stdin, not its bytes.
    arguments: orm.Mapped[dict[str, Any]]
    #: The environment's values and stdin (base64); erased at the end.
    inputs: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(
        deferred=True
    )
    #: Seconds that the command may run.
    timeout: orm.Mapped[int]
    #: When a command that is still PENDING becomes FAILED.
    start_by: orm.Mapped[datetime.datetime]
    #: When a command that is still RUNNING becomes LOST; set by the claim.
    end_by: orm.Mapped[datetime.datetime | None]
    #: Whether clients stream stdin and output while the command runs.
    is_attached: orm.Mapped[bool] = orm.mapped_column(
        sa.Boolean(), default=False
    )
    cancel_requested: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    #: The uuid that the compute service made up for its claim or adoption.
    attempt: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    #: The guest's boot that the command was claimed for, and the guest uptime
    #: (centiseconds) after which its launcher refuses to start.
    boot_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    ticket: orm.Mapped[int | None]
    #: The guest uptime at the start, in centiseconds. A command's age is
    #: measured by the guest's clock.
    started_uptime: orm.Mapped[int | None]
    #: Handles and files that a transfer has open in the guest, for the host
    #: that continues or ends the transfer.
    opened: orm.Mapped[dict[str, Any] | None]
    #: Why the command does not go on, as its host saw last. Part of the error
    #: of an overdue command.
    last_seen: orm.Mapped[str | None] = orm.mapped_column(sa.Text())

    #: When the audit is due; null if there is nothing to tell.
    audit_at: orm.Mapped[datetime.datetime | None]
    #: The last state that the audit has told of.
    audited: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))
    #: Whether the user deleted the command before the audit told of its end.
    deleted: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    error: orm.Mapped[str | None] = orm.mapped_column(sa.Text())
    pid: orm.Mapped[int | None]
    exitcode: orm.Mapped[int | None]
    signal: orm.Mapped[int | None]
    #: The part of each stream that is kept, up to MAX_OUTPUT_BYTES each. The
    #: API shows a share of both.
    out_data: orm.Mapped[bytes | None] = orm.mapped_column(deferred=True)
    err_data: orm.Mapped[bytes | None] = orm.mapped_column(deferred=True)
    #: Bytes of arguments and output in the row.
    kept_bytes: orm.Mapped[int]
    #: Bytes of each stream that are kept, for lists, which read no output.
    out_size: orm.Mapped[int] = orm.column_property(
        sa.func.coalesce(sa.func.length(out_data), 0), deferred=True
    )
    err_size: orm.Mapped[int] = orm.column_property(
        sa.func.coalesce(sa.func.length(err_data), 0), deferred=True
    )
    #: Bytes that the command wrote, kept or not; null if not counted.
    out_bytes: orm.Mapped[int | None]
    err_bytes: orm.Mapped[int | None]

    __table_args__ = (
        sa.Index('guest_agent_commands_uuid_idx', 'uuid', unique=True),
        # The list of a server, newest first.
        sa.Index('guest_agent_commands_instance_idx', 'instance_uuid', 'id'),
        # The list of a project, newest first, and of a host.
        sa.Index(
            'guest_agent_commands_project_idx', 'instance_project_id', 'id'
        ),
        sa.Index('guest_agent_commands_list_idx', 'host', 'id'),
        # What was accepted since a time.
        sa.Index('guest_agent_commands_created_idx', 'created_at'),
        # What is older than its retention.
        sa.Index('guest_agent_commands_finished_idx', 'finished_at'),
        # How much is kept, by server and project.
        sa.Index(
            'guest_agent_commands_kept_idx',
            'instance_uuid',
            'instance_project_id',
            'kept_bytes',
        ),
        # The work of a host, by server, oldest first.
        sa.Index(
            'guest_agent_commands_host_idx',
            'cell_uuid',
            'host',
            'status',
            'instance_uuid',
            'id',
        ),
        # What is unfinished, by project and by server.
        sa.Index(
            'guest_agent_commands_quota_idx',
            'instance_project_id',
            'status',
            'instance_uuid',
        ),
        # What is overdue.
        sa.Index('guest_agent_commands_start_by_idx', 'status', 'start_by'),
        sa.Index('guest_agent_commands_end_by_idx', 'status', 'end_by'),
        # What the audit has to tell.
        sa.Index('guest_agent_commands_audit_idx', 'cell_uuid', 'audit_at'),
        # The list of a run, newest first, and the runs that are due.
        sa.Index('guest_agent_commands_run_idx', 'run_uuid', 'id'),
        sa.Index('guest_agent_commands_run_due_idx', 'run_due'),
    )


class Run(Base):
    """One command in many servers: the request and its progress."""

    __tablename__ = 'guest_agent_runs'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    status: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    created_at: orm.Mapped[datetime.datetime]
    updated_at: orm.Mapped[datetime.datetime | None]
    finished_at: orm.Mapped[datetime.datetime | None]

    #: Who sent the request. All servers are of the same project.
    project_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    user_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    request_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    #: Whether Nova's policy took the user for an admin, who may run commands
    #: in locked servers.
    by_admin: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    #: The command of each server, as in models.Command, and the approximate
    #: size of its inputs in bytes; the inputs are erased at the end.
    type: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    arguments: orm.Mapped[dict[str, Any]]
    inputs: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(
        deferred=True
    )
    input_size: orm.Mapped[int] = orm.mapped_column()
    #: Seconds that each command may run, and from its release to its start.
    timeout: orm.Mapped[int]
    start_timeout: orm.Mapped[int]

    #: Number of servers, and how many commands may be unfinished at once.
    targets: orm.Mapped[int]
    max_concurrency: orm.Mapped[int]
    #: Number of errors after which nothing more is released; null for none.
    max_errors: orm.Mapped[int | None]
    #: Number of targets by their status, and how many of them are errors.
    counts: orm.Mapped[dict[str, Any]]
    errors: orm.Mapped[int]
    cancel_requested: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())
    error: orm.Mapped[str | None] = orm.mapped_column(sa.Text())

    #: When a conductor is to look at the run, whatever its commands do, or the
    #: purge is to remove the deleted run; null if the run has ended.
    due_at: orm.Mapped[datetime.datetime | None]
    #: Until when one conductor looks at the run and the others do not.
    taken_until: orm.Mapped[datetime.datetime]
    #: As in models.Command.
    audit_at: orm.Mapped[datetime.datetime | None]
    audited: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))
    deleted: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    __table_args__ = (
        sa.Index('guest_agent_runs_uuid_idx', 'uuid', unique=True),
        # The list of a project, newest first.
        sa.Index('guest_agent_runs_project_idx', 'project_id', 'id'),
        # How many of a project have not ended.
        sa.Index('guest_agent_runs_quota_idx', 'project_id', 'status'),
        # What is due, what the audit has to tell, what is older than its
        # retention.
        sa.Index('guest_agent_runs_due_idx', 'due_at'),
        sa.Index('guest_agent_runs_audit_idx', 'audit_at'),
        sa.Index('guest_agent_runs_finished_idx', 'finished_at'),
    )


class RunTarget(Base):
    """One server of a run."""

    __tablename__ = 'guest_agent_run_targets'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    run_id: orm.Mapped[int]
    #: Its place in the order of release.
    position: orm.Mapped[int]
    instance_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    #: The uuid that its command gets. It is made up with the target, so that
    #: no target can get two commands.
    command_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    #: One of run.TARGET_STATUSES.
    status: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    #: Why the server was refused.
    error: orm.Mapped[str | None] = orm.mapped_column(sa.Text())
    #: When to try again, after a bound of the server was reached.
    retry_at: orm.Mapped[datetime.datetime | None]

    __table_args__ = (
        # What is next, by the order of release, and what is unfinished.
        sa.Index(
            'guest_agent_run_targets_run_idx', 'run_id', 'status', 'position'
        ),
        sa.Index(
            'guest_agent_run_targets_server_idx',
            'run_id',
            'instance_uuid',
            unique=True,
        ),
        sa.Index(
            'guest_agent_run_targets_command_idx', 'command_uuid', unique=True
        ),
    )


class IdempotencyKey(Base):
    """The Idempotency-Key of a POST, by which a repetition is recognized.

    A key outlives its command: a repetition must not run a deleted command
    again.
    """

    __tablename__ = 'guest_agent_idempotency_keys'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    #: A hash of project, user, server and key, which together are longer than
    #: MySQL can index, and which MySQL would compare regardless of case.
    scope: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    #: The command, or the run.
    command_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    #: The key of a keyed hash of the body, and that hash.
    body_key: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    body_hash: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    #: When the command ended, noted when it is deleted.
    finished_at: orm.Mapped[datetime.datetime | None]

    __table_args__ = (
        sa.Index(
            'guest_agent_idempotency_keys_scope_idx', 'scope', unique=True
        ),
        sa.Index('guest_agent_idempotency_keys_command_idx', 'command_uuid'),
        # What has expired.
        sa.Index('guest_agent_idempotency_keys_finished_idx', 'finished_at'),
    )


class Host(Base):
    """A guest-agent-compute service and its last heartbeat."""

    __tablename__ = 'guest_agent_hosts'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    cell_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    host: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    #: The hash of the secret that the running service got when it registered.
    #: A reader of the table cannot pass for the service, and no comparison
    #: tells how much of a guess is right.
    incarnation: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    machine_id: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    version: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    created_at: orm.Mapped[datetime.datetime]
    last_seen_at: orm.Mapped[datetime.datetime]

    __table_args__ = (
        sa.Index(
            'guest_agent_hosts_host_idx', 'cell_uuid', 'host', unique=True
        ),
    )


class Lease(Base):
    """The right to do something alone, with its holder and its expiry.

    Also the turn of a project, a row that its transactions change first.
    """

    __tablename__ = 'guest_agent_leases'

    name: orm.Mapped[str] = orm.mapped_column(sa.String(64), primary_key=True)
    holder: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    expires_at: orm.Mapped[datetime.datetime]
