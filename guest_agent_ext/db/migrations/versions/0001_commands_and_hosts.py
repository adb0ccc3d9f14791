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

"""The tables of commands and hosts.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa

from guest_agent_ext.db import migration
from guest_agent_ext.db import sqltypes

revision = '0001'
down_revision = None


def upgrade() -> None:
    migration.create_table(
        'guest_agent_commands',
        _id(),
        sa.Column('uuid', sa.String(36), nullable=False),
        sa.Column('type', sa.String(16), nullable=False),
        sa.Column('status', sa.String(16), nullable=False),
        sa.Column('created_at', sqltypes.DateTime, nullable=False),
        sa.Column('updated_at', sqltypes.DateTime),
        sa.Column('started_at', sqltypes.DateTime),
        sa.Column('finished_at', sqltypes.DateTime),
        sa.Column('project_id', sa.String(255), nullable=False),
        sa.Column('user_id', sa.String(255), nullable=False),
        sa.Column('request_id', sa.String(64)),
        sa.Column('instance_uuid', sa.String(36), nullable=False),
        sa.Column('instance_project_id', sa.String(255), nullable=False),
        sa.Column('cell_uuid', sa.String(36), nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('arguments', sa.JSON(none_as_null=True), nullable=False),
        sa.Column('inputs', sa.JSON(none_as_null=True)),
        sa.Column('timeout', sa.BigInteger(), nullable=False),
        sa.Column('start_by', sqltypes.DateTime, nullable=False),
        sa.Column('end_by', sqltypes.DateTime),
        sa.Column('is_attached', sa.Boolean(), nullable=False),
        sa.Column('cancel_requested', sa.Boolean(), nullable=False),
        sa.Column('attempt', sa.String(36)),
        sa.Column('boot_id', sa.String(36)),
        sa.Column('ticket', sa.BigInteger()),
        sa.Column('started_uptime', sa.BigInteger()),
        sa.Column('opened', sa.JSON(none_as_null=True)),
        sa.Column('last_seen', sa.Text()),
        sa.Column('audit_at', sqltypes.DateTime),
        sa.Column('audited', sa.String(16)),
        sa.Column('deleted', sa.Boolean(), nullable=False),
        sa.Column('error', sa.Text()),
        sa.Column('pid', sa.BigInteger()),
        sa.Column('exitcode', sa.BigInteger()),
        sa.Column('signal', sa.BigInteger()),
        sa.Column('out_data', sqltypes.Blob),
        sa.Column('err_data', sqltypes.Blob),
        sa.Column('kept_bytes', sa.BigInteger(), nullable=False),
        sa.Column('out_bytes', sa.BigInteger()),
        sa.Column('err_bytes', sa.BigInteger()),
        mysql_charset='utf8mb4',
    )
    for name, columns in (
        ('instance', ['instance_uuid', 'id']),
        ('project', ['instance_project_id', 'id']),
        ('list', ['host', 'id']),
        ('created', ['created_at']),
        ('finished', ['finished_at']),
        ('kept', ['instance_uuid', 'instance_project_id', 'kept_bytes']),
        ('host', ['cell_uuid', 'host', 'status', 'instance_uuid', 'id']),
        ('quota', ['instance_project_id', 'status', 'instance_uuid']),
        ('start_by', ['status', 'start_by']),
        ('end_by', ['status', 'end_by']),
        ('audit', ['cell_uuid', 'audit_at']),
    ):
        migration.create_index(
            f'guest_agent_commands_{name}_idx', 'guest_agent_commands', columns
        )
    migration.create_index(
        'guest_agent_commands_uuid_idx',
        'guest_agent_commands',
        ['uuid'],
        unique=True,
    )

    migration.create_table(
        'guest_agent_idempotency_keys',
        _id(),
        sa.Column('scope', sa.String(64), nullable=False),
        sa.Column('command_uuid', sa.String(36), nullable=False),
        sa.Column('body_key', sa.String(64), nullable=False),
        sa.Column('body_hash', sa.String(64), nullable=False),
        sa.Column('finished_at', sqltypes.DateTime),
        mysql_charset='utf8mb4',
    )
    for name, column, unique in (
        ('scope', 'scope', True),
        ('command', 'command_uuid', False),
        ('finished', 'finished_at', False),
    ):
        migration.create_index(
            f'guest_agent_idempotency_keys_{name}_idx',
            'guest_agent_idempotency_keys',
            [column],
            unique=unique,
        )

    migration.create_table(
        'guest_agent_hosts',
        _id(),
        sa.Column('cell_uuid', sa.String(36), nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('incarnation', sa.String(64), nullable=False),
        sa.Column('machine_id', sa.String(64), nullable=False),
        sa.Column('version', sa.String(64), nullable=False),
        sa.Column('created_at', sqltypes.DateTime, nullable=False),
        sa.Column('last_seen_at', sqltypes.DateTime, nullable=False),
        mysql_charset='utf8mb4',
    )
    migration.create_index(
        'guest_agent_hosts_host_idx',
        'guest_agent_hosts',
        ['cell_uuid', 'host'],
        unique=True,
    )

    migration.create_table(
        'guest_agent_leases',
        sa.Column('name', sa.String(64), primary_key=True),
        sa.Column('holder', sa.String(36), nullable=False),
        sa.Column('expires_at', sqltypes.DateTime, nullable=False),
        mysql_charset='utf8mb4',
    )


def _id() -> sa.Column[int]:
    # SQLite counts up only an INTEGER primary key.
    return sa.Column(
        'id',
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'),
        primary_key=True,
        autoincrement=True,
    )
