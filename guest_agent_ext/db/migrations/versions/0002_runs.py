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

"""The tables of runs, and what commands note of theirs.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa

from guest_agent_ext.db import migration
from guest_agent_ext.db import sqltypes

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    for name in ('run_uuid', 'run_due'):
        migration.add_column(
            'guest_agent_commands', sa.Column(name, sa.String(36))
        )
    for name, columns in (
        ('run', ['run_uuid', 'id']),
        ('run_due', ['run_due']),
    ):
        migration.create_index(
            f'guest_agent_commands_{name}_idx', 'guest_agent_commands', columns
        )

    migration.create_table(
        'guest_agent_runs',
        _id(),
        sa.Column('uuid', sa.String(36), nullable=False),
        sa.Column('name', sa.String(255)),
        sa.Column('status', sa.String(16), nullable=False),
        sa.Column('created_at', sqltypes.DateTime, nullable=False),
        sa.Column('updated_at', sqltypes.DateTime),
        sa.Column('finished_at', sqltypes.DateTime),
        sa.Column('project_id', sa.String(255), nullable=False),
        sa.Column('user_id', sa.String(255), nullable=False),
        sa.Column('request_id', sa.String(64)),
        sa.Column('by_admin', sa.Boolean(), nullable=False),
        sa.Column('type', sa.String(16), nullable=False),
        sa.Column('arguments', sa.JSON(none_as_null=True), nullable=False),
        sa.Column('inputs', sa.JSON(none_as_null=True)),
        sa.Column('input_size', sa.BigInteger(), nullable=False),
        sa.Column('timeout', sa.BigInteger(), nullable=False),
        sa.Column('start_timeout', sa.BigInteger(), nullable=False),
        sa.Column('targets', sa.BigInteger(), nullable=False),
        sa.Column('max_concurrency', sa.BigInteger(), nullable=False),
        sa.Column('max_errors', sa.BigInteger()),
        sa.Column('counts', sa.JSON(none_as_null=True), nullable=False),
        sa.Column('errors', sa.BigInteger(), nullable=False),
        sa.Column('cancel_requested', sa.Boolean(), nullable=False),
        sa.Column('error', sa.Text()),
        sa.Column('due_at', sqltypes.DateTime),
        sa.Column('taken_until', sqltypes.DateTime, nullable=False),
        sa.Column('audit_at', sqltypes.DateTime),
        sa.Column('audited', sa.String(16)),
        sa.Column('deleted', sa.Boolean(), nullable=False),
        mysql_charset='utf8mb4',
    )
    for name, columns, unique in (
        ('uuid', ['uuid'], True),
        ('project', ['project_id', 'id'], False),
        ('quota', ['project_id', 'status'], False),
        ('due', ['due_at'], False),
        ('audit', ['audit_at'], False),
        ('finished', ['finished_at'], False),
    ):
        migration.create_index(
            f'guest_agent_runs_{name}_idx',
            'guest_agent_runs',
            columns,
            unique=unique,
        )

    migration.create_table(
        'guest_agent_run_targets',
        _id(),
        sa.Column('run_id', sa.BigInteger(), nullable=False),
        sa.Column('position', sa.BigInteger(), nullable=False),
        sa.Column('instance_uuid', sa.String(36), nullable=False),
        sa.Column('command_uuid', sa.String(36), nullable=False),
        sa.Column('status', sa.String(16), nullable=False),
        sa.Column('error', sa.Text()),
        sa.Column('retry_at', sqltypes.DateTime),
        mysql_charset='utf8mb4',
    )
    for name, columns, unique in (
        ('run', ['run_id', 'status', 'position'], False),
        ('server', ['run_id', 'instance_uuid'], True),
        ('command', ['command_uuid'], True),
    ):
        migration.create_index(
            f'guest_agent_run_targets_{name}_idx',
            'guest_agent_run_targets',
            columns,
            unique=unique,
        )


def _id() -> sa.Column[int]:
    # SQLite counts up only an INTEGER primary key.
    return sa.Column(
        'id',
        sa.BigInteger().with_variant(sa.Integer(), 'sqlite'),
        primary_key=True,
        autoincrement=True,
    )
