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

"""Runs: one command in many servers."""

from collections.abc import Callable
import contextlib
import functools
from typing import Any
from typing import cast
from typing import NoReturn

from oslo_db import exception as db_exc
from oslo_utils import uuidutils
import webob.exc

from guest_agent_ext import conf
from guest_agent_ext import exception
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext import run as run_limits
from guest_agent_ext.api import command_request
from guest_agent_ext.api import errors
from guest_agent_ext.api import idempotency
from guest_agent_ext.api import pages
from guest_agent_ext.api import run_targets
from guest_agent_ext.api import schemas
from guest_agent_ext.api import servers
from guest_agent_ext.api import validation
from guest_agent_ext.api import views
from guest_agent_ext.api import waiting
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import commands
from guest_agent_ext.db import models
from guest_agent_ext.db import runs

CONF = conf.CONF

_COLLECTION = 'guest-agent/runs'


def _authorized(rule: str) -> Callable[[wsgi.Method], wsgi.Method]:
    """Find the run of a request, and check that its caller may proceed.

    The method is called with ``run``, the row, in place of ``run_id``. As with
    servers.authorized(), what another project has is not told, whatever the
    policy says.

    :param rule: policy rule, checked for the run's project
    """

    def decorate(method: wsgi.Method) -> wsgi.Method:
        @functools.wraps(method)
        def wrapper(
            self: object, req: nova_types.Request, run_id: str, **kwargs: Any
        ) -> Any:
            context = wsgi.context_of(req)
            run = _find(context, run_id)
            if run is None:
                raise webob.exc.HTTPNotFound(
                    explanation='Run %s could not be found.' % run_id
                )
            policies.authorize(context, rule, run.project_id)
            return method(self, req=req, run=run, **kwargs)

        return cast(wsgi.Method, wrapper)

    return decorate


class RunsController(wsgi.Controller):
    """``/guest-agent/runs``"""

    @wsgi.idempotent
    @wsgi.response(202)
    @wsgi.expected_errors(400, 403, 409, 410, 422, 503)
    @policies.authorized(policies.RUNS_CREATE)
    @validation.query_schema(schemas.no_query)
    @validation.schema(schemas.run_create)
    @validation.response_body_schema(schemas.run_response)
    def create(
        self, req: nova_types.Request, body: dict[str, Any]
    ) -> wsgi.ResponseObject:
        """Run a command in many servers."""
        context = wsgi.context_of(req)
        servers.check_project(context)
        asked = body['run']
        policies.authorize(
            context, policies.CREATE_RULES[asked['type']], context.project_id
        )
        order = command_request.order_of(asked, 'run')
        key = idempotency.key_of(req, idempotency.RUNS, body)
        run = _repeated(key) or _accept(context, asked, order, key)
        return _shown(req, run)

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403)
    @policies.authorized(policies.RUNS_INDEX)
    @validation.query_schema(schemas.runs_query)
    @validation.response_body_schema(schemas.runs_response)
    def index(self, req: nova_types.Request) -> pages.PageOfRuns:
        """List the runs of a project, newest first."""
        project_id = pages.project_of(req)
        before = pages.marked(
            req,
            'this list',
            lambda uuid: runs.get(uuid, project_id=project_id),
            'run',
        )

        def read(limit: int) -> runs.Page:
            return runs.list_all(
                limit=limit,
                before=before,
                project_id=project_id,
                statuses=req.GET.getall('status'),
            )

        return pages.page_of_runs(req, _COLLECTION, read)

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @_authorized(policies.RUNS_SHOW)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.run_response)
    def show(
        self, req: nova_types.Request, run: models.Run
    ) -> wsgi.ResponseObject:
        """Show a run."""
        return _shown(req, run)

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403, 404)
    @_authorized(policies.RUNS_SHOW)
    @validation.query_schema(schemas.run_commands_query)
    @validation.response_body_schema(schemas.index_response)
    def list_commands(
        self, req: nova_types.Request, run: models.Run
    ) -> pages.Page:
        """List the commands of a run, newest first, without output."""

        def find(uuid: str) -> models.Command | None:
            row = commands.get(uuid)
            return row if row is None or row.run_uuid == run.uuid else None

        before = pages.marked(req, 'this run', find)

        def read(limit: int) -> commands.Page:
            return commands.list_of_run(
                run.uuid,
                limit=limit,
                before=before,
                statuses=req.GET.getall('status'),
                instance_uuids=req.GET.getall('server'),
            )

        return pages.page(req, f'{_COLLECTION}/{run.uuid}/commands', read)

    @wsgi.response(202)
    @wsgi.expected_errors(400, 403, 404, 409)
    @_authorized(policies.RUNS_CANCEL)
    @validation.query_schema(schemas.no_query)
    @validation.schema(schemas.run_action)
    @validation.response_body_schema(schemas.no_response)
    def act(
        self, req: nova_types.Request, run: models.Run, body: dict[str, Any]
    ) -> None:
        """Cancel a run: release nothing more, and cancel its commands."""
        if not runs.cancel(run.uuid):
            servers.conflict('Run %s has already ended' % run.uuid)

    @wsgi.response(204)
    @wsgi.expected_errors(400, 403, 404, 409)
    @_authorized(policies.RUNS_DELETE)
    @validation.query_schema(schemas.no_query)
    @validation.response_body_schema(schemas.no_response)
    def delete(self, req: nova_types.Request, run: models.Run) -> None:
        """Delete a run that has ended, with its commands."""
        if not runs.delete(run.uuid):
            servers.conflict(
                'Run %s has not ended; cancel it first' % run.uuid
            )


def _find(
    context: nova_types.RequestContext, run_id: str
) -> models.Run | None:
    """Return a run that the caller may know of."""
    if not uuidutils.is_uuid_like(run_id):
        return None
    run = runs.get(run_id)
    if run is None or context.is_admin:
        return run
    return run if run.project_id == context.project_id else None


def _shown(req: nova_types.Request, run: models.Run) -> wsgi.ResponseObject:
    """Answer a run, after a wait for its end if the request prefers."""
    run, headers = waiting.waited_for_run(req, run)
    viewer = views.viewer_of(wsgi.context_of(req), run.project_id)
    view = views.run(run, viewer, runs.counts_of([run])[run.id])
    view['refused'] = views.refused(
        runs.refusals(run.id, run_limits.MAX_REFUSED)
    )
    return wsgi.ResponseObject({'run': view}, headers=headers)


def _repeated(key: idempotency.Key | None) -> models.Run | None:
    """Return the run that was accepted with a key before, if any.

    :raises webob.exc.HTTPGone: the run has been deleted
    """
    if key is None or (uuid := key.find()) is None:
        return None
    return runs.get(uuid) or key.gone(uuid)


def _accept(
    context: nova_types.RequestContext,
    asked: dict[str, Any],
    order: command_request.Order,
    key: idempotency.Key | None,
) -> models.Run:
    uuids, missing = run_targets.find(
        context,
        asked['targets'],
        allow_missing_cells=asked.get('allow_missing_cells', False),
    )
    row = _row(context, asked, order, len(uuids))
    if missing:
        row['error'] = (
            'Servers of these cells were left out, which were down: %s'
            % ', '.join(missing)
        )
    targets = [runs.Target(uuid, uuidutils.generate_uuid()) for uuid in uuids]
    try:
        return _record(row, targets, key)
    except db_exc.DBDuplicateEntry:
        # Another request with this key was recorded a moment ago.
        return _repeated(key) or _unknown(str(row['uuid']))


def _row(
    context: nova_types.RequestContext,
    asked: dict[str, Any],
    order: command_request.Order,
    number: int,
) -> dict[str, object]:
    """Return the columns of a run.

    :param number: number of targets
    """
    concurrency = asked.get('max_concurrency', run_limits.DEFAULT_CONCURRENCY)
    max_errors = asked.get('max_errors')
    return {
        'uuid': uuidutils.generate_uuid(),
        'name': asked.get('name'),
        'project_id': context.project_id,
        'user_id': context.user_id,
        'request_id': context.request_id,
        'by_admin': context.is_admin,
        'type': order.type,
        'arguments': order.arguments,
        'inputs': order.inputs,
        'timeout': order.timeout,
        'start_timeout': order.start_timeout,
        'max_concurrency': min(
            run_limits.share(concurrency, number), run_limits.MAX_CONCURRENCY
        ),
        'max_errors': (
            None
            if max_errors is None
            else run_limits.share(max_errors, number)
        ),
    }


def _record(
    row: dict[str, object],
    targets: list[runs.Target],
    key: idempotency.Key | None,
) -> models.Run:
    """Insert the row of a run with its targets, and return the row.

    :raises oslo_db.exception.DBDuplicateEntry: the key is taken
    """
    bound: int = CONF.guest_agent.max_runs_per_project
    try:
        return runs.create(
            row,
            targets,
            None if key is None else key.columns(),
            None if bound < 0 else bound,
        )
    except exception.TooManyRuns:
        raise webob.exc.HTTPForbidden(
            explanation='Project %s may have %d runs that have not ended, and '
            'has them already; wait for one to end, or cancel one'
            % (row['project_id'], bound)
        ) from None
    except db_exc.DBConnectionError:
        # The commit may have succeeded all the same: only the row tells.
        uuid = str(row['uuid'])
        with contextlib.suppress(db_exc.DBConnectionError):
            found = runs.get(uuid)
            if found is not None:
                return found
        _unknown(uuid)
    except db_exc.DBDeadlock:
        raise webob.exc.HTTPServiceUnavailable(
            explanation='The run could not be recorded: too much of project '
            '%s is being recorded at once; try again' % row['project_id'],
            headers=errors.RETRY,
        ) from None


def _unknown(uuid: str) -> NoReturn:
    """Answer 503: nobody can tell whether a run is recorded."""
    raise webob.exc.HTTPServiceUnavailable(
        explanation='The database did not answer: run %s may have been '
        'accepted. Look for it before you ask again, or repeat the request '
        'with the same %s.' % (uuid, wsgi.IDEMPOTENCY_KEY)
    )
