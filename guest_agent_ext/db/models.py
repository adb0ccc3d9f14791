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

"""The tables. Migrations that make them stand in ``db/migrations``.

There are no foreign keys to Nova's tables: these may live in a database of
their own.
"""

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from guest_agent_ext.db import sqltypes


class Base(orm.DeclarativeBase):
    """The tables of guest_agent_ext and nothing else."""

    type_annotation_map = {
        datetime.datetime: sqltypes.DateTime,
        dict[str, Any]: sa.JSON(none_as_null=True),
        bytes: sqltypes.Blob,
        int: sa.BigInteger(),
    }


class Command(Base):
    """One command: what was asked, where it stands, what came of it."""

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

    #: Who asked, with which request.
    project_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    user_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    request_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))

    instance_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    #: The server's project: what the quota is charged to.
    instance_project_id: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    #: Where the server was when last seen. A hint that finds the row; the
    #: owner is instance.host, which the conductor reads in the cell.
    cell_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    host: orm.Mapped[str] = orm.mapped_column(sa.String(255))

    #: What was asked, as users may see it: names of the environment, not its
    #: values; the size of stdin, not its bytes.
    arguments: orm.Mapped[dict[str, Any]]
    #: The environment's values and stdin (base64); erased at the end.
    inputs: orm.Mapped[dict[str, Any] | None] = orm.mapped_column(
        deferred=True
    )
    #: Seconds from start.
    timeout: orm.Mapped[int]
    #: Not started by then: FAILED.
    start_by: orm.Mapped[datetime.datetime]
    #: Handed out and not ended by then: LOST.
    end_by: orm.Mapped[datetime.datetime | None]
    cancel_requested: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    #: Made by the compute service that has the command.
    attempt: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    #: The guest's boot that it was handed to, and the guest's uptime
    #: (centiseconds) after which the launcher there refuses it.
    boot_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    ticket: orm.Mapped[int | None]
    #: The guest's uptime at its start, in centiseconds: a command's age is
    #: told by the guest's own clock.
    started_uptime: orm.Mapped[int | None]
    #: What the guest has open for a transfer: whoever goes on with it, or ends
    #: it, has to know.
    opened: orm.Mapped[dict[str, Any] | None]
    #: What its host saw last, for the error of a command that ends overdue.
    last_seen: orm.Mapped[str | None] = orm.mapped_column(sa.Text())

    #: When the audit is to tell of it; null once that is done.
    audit_at: orm.Mapped[datetime.datetime | None]
    #: The last state that the audit has told of.
    audited: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))
    #: Deleted by its user before the audit has told of its end.
    deleted: orm.Mapped[bool] = orm.mapped_column(sa.Boolean())

    error: orm.Mapped[str | None] = orm.mapped_column(sa.Text())
    pid: orm.Mapped[int | None]
    exitcode: orm.Mapped[int | None]
    signal: orm.Mapped[int | None]
    #: The kept end of each stream, up to MAX_OUTPUT_BYTES each; the result
    #: shows a share of both.
    out_data: orm.Mapped[bytes | None] = orm.mapped_column(deferred=True)
    err_data: orm.Mapped[bytes | None] = orm.mapped_column(deferred=True)
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
        # What was accepted since.
        sa.Index('guest_agent_commands_created_idx', 'created_at'),
        # What is kept no longer.
        sa.Index('guest_agent_commands_finished_idx', 'finished_at'),
        # The work of a host.
        sa.Index(
            'guest_agent_commands_host_idx', 'cell_uuid', 'host', 'status'
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
    )


class IdempotencyKey(Base):
    """What a POST named itself, to be known again when it is repeated.

    It outlives its command: a repetition must not run what was deleted.
    """

    __tablename__ = 'guest_agent_idempotency_keys'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    #: A hash of project, user, server and key: together they are longer than
    #: what MySQL indexes, and compared without regard to case there.
    scope: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    command_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    #: The body, as a keyed hash with a key of this row.
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
    """A guest-agent-compute service: who it is, and when it was last heard."""

    __tablename__ = 'guest_agent_hosts'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), primary_key=True
    )
    cell_uuid: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    host: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    #: Counts the starts of the service; an older one is fenced.
    incarnation: orm.Mapped[int]
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
    """What only one process does at a time, and which one until when."""

    __tablename__ = 'guest_agent_leases'

    name: orm.Mapped[str] = orm.mapped_column(sa.String(64), primary_key=True)
    holder: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    expires_at: orm.Mapped[datetime.datetime]
