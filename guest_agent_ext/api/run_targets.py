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

"""Finds the servers in which the command of a run is to run, once.

Tags and metadata are looked up in Nova's own list of servers, in every cell at
once.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
import functools
from typing import TypedDict

from nova import exception as nova_exc
from nova import objects
from oslo_utils import uuidutils

from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import nova_types
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation

CONF = conf.CONF

#: Number of servers that one query of a cell reads.
PAGE = 1000
#: Maximum number of cells that are read at once.
MAX_CELLS = 16


class Choice(TypedDict, total=False):
    """Targets as a request has them, see schemas.run_targets."""

    servers: list[str]
    tags: list[str]
    metadata: dict[str, str]


class _Wanted(TypedDict):
    """What a server must have, all of it."""

    tags: Collection[str]
    metadata: Mapping[str, str]


def find(
    context: nova_types.RequestContext,
    choice: Choice,
    *,
    allow_missing_cells: bool,
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the targets of a run, and the cells that were not looked into.

    The targets that are listed come first, in their order, and then the others
    by cell and age. All are servers of the caller's project.

    :param allow_missing_cells: whether to leave out a cell that is down
    :returns: uuids of servers, and names of cells
    :raises webob.exc.HTTPBadRequest: a listed server does not exist; there are
        no targets, or too many
    :raises webob.exc.HTTPConflict: a cell is down
    """
    found = dict.fromkeys(_listed(context, choice.get('servers', [])))
    missing: list[str] = []
    wanted: _Wanted = {
        'tags': set(choice.get('tags', ())),
        'metadata': choice.get('metadata', {}),
    }
    if any(wanted.values()) and _may_exist(wanted):
        for cell, chosen in _chosen(context, wanted).items():
            if chosen is not None:
                found.update(dict.fromkeys(chosen))
            elif allow_missing_cells:
                missing.append(cell)
            else:
                servers.conflict(
                    'Cell %s is down, so its servers cannot be found; try '
                    'again later, or leave them out with '
                    'run.allow_missing_cells' % cell
                )
    _check_number(len(found), context)
    return list(found), missing


def _may_exist(wanted: _Wanted) -> bool:
    """Return whether the databases of cells can have what is wanted.

    Nova's tables have no characters of more than three bytes, and MySQL would
    answer the question for some with an error.
    """
    texts = [*wanted['tags'], *wanted['metadata'].values()]
    return all(max(text, default='') <= '\uffff' for text in texts)


def _check_number(number: int, context: nova_types.RequestContext) -> None:
    maximum: int = CONF.guest_agent.max_run_targets
    if not number:
        validation.bad_request(
            'run.targets must choose at least one server, but project %s has '
            'no such server' % context.project_id
        )
    if number > maximum:
        validation.bad_request(
            'run.targets must choose at most %d servers, not %s'
            % (
                maximum,
                # No more are read of any cell.
                number if number <= maximum + 1 else 'more than that',
            )
        )


def _listed(
    context: nova_types.RequestContext, uuids: Sequence[str]
) -> Sequence[str]:
    """Return the uuids that a request lists, as Nova spells them."""
    maximum: int = CONF.guest_agent.max_run_targets
    if len(uuids) > maximum:
        validation.bad_request(
            'run.targets.servers must have at most %d value(s)' % maximum
        )
    for position, uuid in enumerate(uuids):
        if not uuidutils.is_uuid_like(uuid):
            validation.bad_request(
                'run.targets.servers[%d] must be a uuid, not %s'
                % (position, uuid)
            )
    spelled = [_spelled(uuid) for uuid in uuids]
    known = {
        mapping.instance_uuid
        for mapping in objects.InstanceMappingList.get_by_instance_uuids(
            context, spelled
        )
        if mapping.project_id == context.project_id
        and not mapping.queued_for_delete
    }
    for position, uuid in enumerate(spelled):
        if uuid not in known:
            validation.bad_request(
                'run.targets.servers[%d] must be a server of project %s, and '
                '%s is none' % (position, context.project_id, uuid)
            )
    return spelled


def _spelled(uuid: str) -> str:
    digits = uuid.replace('-', '').lower()
    return '-'.join(
        digits[start:end]
        for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    )


def _chosen(
    context: nova_types.RequestContext, wanted: _Wanted
) -> dict[str, Sequence[str] | None]:
    """Find servers in every cell at once.

    :returns: uuids of servers by the name of the cell, None for a cell that is
        down
    """
    cells = [
        cell
        for cell in objects.CellMappingList.get_all(context)
        if not cell.is_cell0()
    ]
    if not cells:
        return {}
    with futures.ThreadPoolExecutor(min(len(cells), MAX_CELLS)) as pool:
        found = pool.map(functools.partial(_in_cell, context, wanted), cells)
        return {
            cell.name or cell.uuid: uuids
            for cell, uuids in zip(cells, found, strict=True)
        }


def _in_cell(
    context: nova_types.RequestContext,
    wanted: _Wanted,
    cell: nova_types.CellMapping,
) -> Sequence[str] | None:
    try:
        return servers.in_cell(
            context, cell, functools.partial(_matching, wanted)
        )
    except exception.CellIsDown:
        return None


def _matching(
    wanted: _Wanted, context: nova_types.RequestContext
) -> Sequence[str]:
    """Return the servers of a cell that have what is wanted, oldest first.

    :param context: context for the cell
    :returns: uuids, not many more than there may be
    """
    filters: dict[str, object] = {
        'project_id': context.project_id,
        'deleted': False,
    }
    if wanted['tags']:
        filters['tags'] = sorted(wanted['tags'])
    if wanted['metadata']:
        filters['metadata'] = [
            {name: value} for name, value in wanted['metadata'].items()
        ]
    found: list[str] = []
    marker = None
    while len(found) <= CONF.guest_agent.max_run_targets:
        try:
            page = objects.InstanceList.get_by_filters(
                context,
                filters,
                limit=PAGE,
                marker=marker,
                expected_attrs=['metadata', 'tags'],
                sort_keys=['created_at', 'id'],
                sort_dirs=['asc', 'asc'],
            )
        except nova_exc.MarkerNotFound:
            # The server was deleted a moment ago; begin again.
            found, marker = [], None
            continue
        found += [item.uuid for item in page if _has(item, wanted)]
        if len(page) < PAGE:
            break
        marker = page[-1].uuid
    return found


def _has(instance: nova_types.ListedInstance, wanted: _Wanted) -> bool:
    """Return whether a server has what is wanted, to the letter.

    Nova takes a name of one item and the value of another for a match, and
    MySQL compares regardless of case.
    """
    return wanted['metadata'].items() <= instance.metadata.items() and set(
        wanted['tags']
    ) <= {tag.tag for tag in instance.tags}
