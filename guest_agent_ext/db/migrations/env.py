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

"""Alembic's environment; it runs only under db/migration.py."""

from alembic import context

from guest_agent_ext.db import migration
from guest_agent_ext.db import models

context.configure(
    connection=context.config.attributes['connection'],
    target_metadata=models.Base.metadata,
    version_table=migration.VERSION_TABLE,
    include_name=lambda name, kind, parents: migration.is_ours(name, kind),
    render_as_batch=True,
)

with context.begin_transaction():
    context.run_migrations()
