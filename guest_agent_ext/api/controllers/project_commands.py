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

"""The commands of a project: in all its servers, or of all projects.

An operator asks for them after an incident: what ran on this host since noon?
"""

import datetime

from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext.api import pages
from guest_agent_ext.api import schemas
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models


class ProjectCommandsController(wsgi.Controller):
    """``/guest-agent/commands``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403)
    @policies.authorized(policies.PROJECT_COMMANDS_INDEX)
    @validation.query_schema(schemas.project_commands_query)
    @validation.response_body_schema(schemas.index_response)
    def index(self, req: nova_types.Request) -> pages.Page:
        """List the commands of a project, newest first, without output."""
        project_id = pages.project_of(req)

        def find(uuid: str) -> models.Command | None:
            row = commands.get(uuid)
            if row is None or project_id in (None, row.instance_project_id):
                return row
            return None

        before = pages.marked(req, 'this list', find)

        def read(limit: int) -> commands.Page:
            return commands.list_all(
                limit=limit,
                before=before,
                project_id=project_id,
                statuses=req.GET.getall('status'),
                host=req.GET.get('host'),
                since=_since(req),
            )

        return pages.page(req, 'guest-agent/commands', read)


def _since(req: nova_types.Request) -> datetime.datetime | None:
    since = req.GET.get('since')
    if since is None:
        return None
    try:
        return datetime.datetime.strptime(since, schemas.TIME_FORMAT)
    except ValueError:
        validation.bad_request(
            'since must be a time in UTC (2026-03-09T12:13:22Z), not %s'
            % since
        )
