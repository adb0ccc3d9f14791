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

"""What the script in the browser asks about runs."""

from typing import Any

from django import http
from django.utils.translation import gettext as _
from horizon.utils import functions

from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import endpoints
from guest_agent_ext.dashboard import run_words
from guest_agent_ext.dashboard import views


class Runs(endpoints.Endpoint):
    """New runs."""

    def post(self, request: http.HttpRequest) -> http.HttpResponse:
        body = endpoints.json_of(request)
        run = body.get('run')
        if not isinstance(run, dict):
            raise client.Problem(400, _('The run is missing.'))
        # The browser's, so that it may repeat what was not answered.
        key = str(body.get('key') or client.new_key())
        created = self.api.create_run(run, key)
        return http.JsonResponse(
            {
                'uuid': created['uuid'],
                'url': endpoints.url_of(request, 'run', created['uuid']),
            }
        )


class Run(endpoints.Endpoint):
    """A run, with what it was told."""

    def get(self, request: http.HttpRequest, run_id: str) -> http.HttpResponse:
        run = self.api.run(run_id)
        return http.JsonResponse(
            {
                **run_words.summary(run),
                **{
                    name: run.get(name)
                    for name in ('arguments', 'max_concurrency', 'max_errors')
                },
            }
        )

    def delete(
        self, request: http.HttpRequest, run_id: str
    ) -> http.HttpResponse:
        self.api.delete_run(run_id)
        return http.JsonResponse({})


class Cancel(endpoints.Endpoint):
    """The end of a run, before its time."""

    def post(
        self, request: http.HttpRequest, run_id: str
    ) -> http.HttpResponse:
        self.api.cancel_run(run_id)
        return http.JsonResponse({}, status=202)


class Progress(endpoints.Endpoint):
    """A run as it is now, with a page of its commands."""

    def get(self, request: http.HttpRequest, run_id: str) -> http.HttpResponse:
        # In this order: of a run that has ended every command is listed as
        # ended.
        run = self.api.run(run_id)
        filters = endpoints.given(request, 'status', 'marker')
        size = functions.get_page_size(request)
        answer = self.api.run_commands(run_id, limit=str(size), **filters)
        commands = [self._shown(each) for each in answer['commands']]
        has_next = bool(answer.get('commands_links')) and bool(commands)
        shown = run_words.summary(run)
        # It is long, and the page has it.
        del shown['line']
        refused = [_refused(each) for each in run['refused']]
        return http.JsonResponse(
            {
                **shown,
                'commands': commands,
                'next': commands[-1]['uuid'] if has_next else '',
                # Only if there are more than the page has.
                'refused': refused
                if request.GET.get('refused') != str(len(refused))
                else None,
            }
        )

    def _shown(self, command: client.Json) -> dict[str, Any]:
        shown = endpoints.shown(self.request, command)
        # That of all of them is the run's.
        del shown['line']
        return {**shown, 'server_url': _server_url(shown['server_id'])}


def _refused(target: client.Json) -> dict[str, str]:
    server_id = target['instance_uuid']
    return {
        'server_id': server_id,
        'server_url': _server_url(server_id),
        'error': target['error'],
    }


def _server_url(server_id: str) -> str:
    return views.instance_url('project', server_id)
