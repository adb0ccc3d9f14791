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

"""Lists of commands, a page at a time."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from guest_agent_ext import conf
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.db import commands
from guest_agent_ext.db import models

CONF = conf.CONF


def page(
    req: Any, collection: str, read: Callable[[int], Sequence[models.Command]]
) -> dict[str, Any]:
    """Answer one page of commands.

    :param collection: the list's path, below the version
    :param read: return as many commands at most, from the marker on
    """
    limit = _limit(req)
    # One more than asked for tells whether there is another page.
    rows = read(limit + 1)
    shown = rows[:limit]
    answer: dict[str, Any] = {
        'commands': _listed(req.environ['nova.context'], shown)
    }
    if shown and len(rows) > limit:
        answer['commands_links'] = views.Links().next_page(
            req, collection, shown[-1].uuid
        )
    return answer


def marked(
    req: Any, whose: str, find: Callable[[str], models.Command | None]
) -> int | None:
    """Return the ``id`` of the command that a page begins after.

    :param whose: what the commands of the list are of
    :param find: return a command of the list
    :raises webob.exc.HTTPBadRequest: the list has no such command
    """
    marker = req.GET.get('marker')
    if marker is None:
        return None
    row = find(marker)
    if row is None:
        validation.bad_request(
            'marker must be a command of %s, not %s' % (whose, marker)
        )
    return row.id


def _limit(req: Any) -> int:
    maximum: int = CONF.api.max_limit
    return min(int(req.GET.get('limit', maximum)), maximum)


def _listed(
    context: Any, rows: Sequence[models.Command]
) -> list[dict[str, Any]]:
    sizes = commands.output_sizes([row.id for row in rows])
    viewers = {
        project_id: views.viewer_of(context, project_id)
        for project_id in {row.instance_project_id for row in rows}
    }
    return [
        views.listed(row, sizes[row.id], viewers[row.instance_project_id])
        for row in rows
    ]
