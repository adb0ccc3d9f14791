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

"""What the script in the browser asks: JSON, and bytes.

Every answer that is no page of Horizon's has JSON or bytes: the login page
that Horizon redirects to can be told from it.
"""

import base64
import json
from typing import Any
from typing import cast

from django import http
from django import urls
from django.utils.translation import gettext as _
from django.views import generic

from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import slots
from guest_agent_ext.dashboard import transfers
from guest_agent_ext.dashboard import words

#: Commands that the page of a server lists.
_LAST = 10

#: Maximum number of bytes of a request's JSON: that of the API, with what
#: JSON makes of it.
_MAX_JSON = 8 * 1024 * 1024

#: Maximum number of bytes of stdin in one request, which is the API's.
_MAX_INPUT = 256 * 1024

#: Seconds that a terminal's request for output may hold a thread.
_WAIT = 2

_PREFIX = 'OpenStack-Guest-Agent-'


class Endpoint(generic.View):
    """A call of the script; the API's refusals are its answers, too."""

    def dispatch(
        self, request: http.HttpRequest, *args: Any, **kwargs: Any
    ) -> http.HttpResponseBase:
        # Ids are those of Django's converter, and paths have texts.
        ids = {name: str(value) for name, value in kwargs.items()}
        try:
            self.api = client.Client(request)
            answer = super().dispatch(request, *args, **ids)
        except client.Problem as problem:
            return _refusal(problem)
        answer.headers.setdefault('Cache-Control', 'no-store')
        return cast(http.HttpResponseBase, answer)

    def http_method_not_allowed(
        self, request: http.HttpRequest, *args: Any, **kwargs: Any
    ) -> http.HttpResponse:
        return _refusal(client.Problem(405, _('There is no such call.')))


class Agent(Endpoint):
    """Whether commands can run in a server, and what to do if not."""

    def get(
        self, request: http.HttpRequest, server_id: str
    ) -> http.HttpResponse:
        agent = self.api.agent(server_id)
        return http.JsonResponse(
            {**agent, 'advice': words.advice(agent['reason'])}
        )


class Details(Endpoint):
    """What the guest agent tells of a guest."""

    def get(
        self, request: http.HttpRequest, server_id: str
    ) -> http.HttpResponse:
        return http.JsonResponse(self.api.details(server_id))


class Commands(Endpoint):
    """The last commands of a server, and new ones."""

    def get(
        self, request: http.HttpRequest, server_id: str
    ) -> http.HttpResponse:
        answer = self.api.commands(server_id, limit=str(_LAST))
        return http.JsonResponse(
            {'commands': [shown(request, each) for each in answer['commands']]}
        )

    def post(
        self, request: http.HttpRequest, server_id: str
    ) -> http.HttpResponse:
        body = json_of(request)
        arguments = body.get('arguments')
        if not isinstance(arguments, dict):
            raise client.Problem(400, _('The arguments are missing.'))
        # The browser's, so that it may repeat what was not answered.
        key = str(body.get('key') or client.new_key())
        kind = str(body.get('type') or 'exec')
        command = self.api.create(server_id, kind, arguments, key)
        return http.JsonResponse(shown(request, command))


class Command(Endpoint):
    """A command as it is now, with what is new of its output."""

    def get(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponse:
        command = self.api.command(server_id, command_id)
        answer = {
            **shown(request, command),
            'arguments': command.get('arguments'),
            'times': [
                words.shown_time(command.get(name))
                for name in ('created_at', 'started_at', 'finished_at')
            ],
            'written': {
                stream: (command.get('result') or {}).get(f'{stream}_bytes')
                for stream in ('out', 'err')
            },
        }
        # To ask for the output of an attached command takes it from whoever
        # is attached.
        is_read = answer['is_attached'] and not answer['has_ended']
        for stream in ('out', 'err'):
            offset = request.GET.get(stream)
            if offset and command['type'] == 'exec' and not is_read:
                answer[stream] = self._output(
                    server_id, command_id, stream, offset
                )
        return http.JsonResponse(answer)

    def delete(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponse:
        self.api.delete(server_id, command_id)
        return http.JsonResponse({})

    def _output(
        self, server_id: str, command_id: str, stream: str, offset: str
    ) -> dict[str, Any]:
        try:
            answer = self.api.output(
                server_id, command_id, stream=stream, offset=offset
            )
        except client.Problem as problem:
            # The guest may be away for a moment; the command is not.
            return {
                'data': '',
                'offset': int(offset) if offset.isdecimal() else 0,
                'next': int(offset) if offset.isdecimal() else 0,
                'complete': False,
                'problem': problem.message,
            }
        headers = answer.headers
        return {
            'data': base64.b64encode(answer.content).decode(),
            'offset': int(headers[_PREFIX + 'Offset']),
            'next': int(headers[_PREFIX + 'Next-Offset']),
            'complete': headers[_PREFIX + 'Complete'] == 'true',
        }


class Cancel(Endpoint):
    """The end of a command, before its time."""

    def post(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponse:
        self.api.cancel(server_id, command_id)
        return http.JsonResponse({}, status=202)


class Hosts(Endpoint):
    """The services that run commands, as they are now."""

    def get(self, request: http.HttpRequest) -> http.HttpResponse:
        hosts = [words.host(each) for each in self.api.hosts()]
        return http.JsonResponse({'hosts': hosts})


class Resize(Endpoint):
    """The size of a terminal."""

    def post(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponse:
        body = json_of(request)
        try:
            columns, rows = int(body['columns']), int(body['rows'])
        except (KeyError, TypeError, ValueError):
            raise client.Problem(400, _('The size is missing.')) from None
        self.api.resize(server_id, command_id, columns, rows)
        return http.JsonResponse({}, status=202)


class Input(Endpoint):
    """The stdin of an attached command."""

    def post(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponse:
        data = request.read(_MAX_INPUT + 1)
        if len(data) > _MAX_INPUT:
            raise client.Problem(413, _('The input is too long.'))
        return http.JsonResponse(
            self.api.send_input(
                server_id,
                command_id,
                data,
                **given(request, 'offset', 'end', 'client', 'take_over'),
            )
        )


class Stream(Endpoint):
    """The output of an attached command; asking for it takes it."""

    def get(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponse:
        params = given(request, 'stream', 'offset', 'client', 'take_over')
        give_back = slots.waits.take()
        try:
            answer = self.api.output(
                server_id,
                command_id,
                # Without a slot it is the browser that waits.
                wait=str(_WAIT if give_back else 0),
                **params,
            )
        finally:
            if give_back:
                give_back()
        response = http.HttpResponse(
            answer.content, content_type='application/octet-stream'
        )
        response['X-Content-Type-Options'] = 'nosniff'
        for name in ('Offset', 'Next-Offset', 'Complete'):
            response[_PREFIX + name] = answer.headers[_PREFIX + name]
        response[_PREFIX + 'Waited'] = 'true' if give_back else 'false'
        return response


class Download(Endpoint):
    """The output of a command that has ended, to be saved."""

    def get(
        self, request: http.HttpRequest, server_id: str, command_id: str
    ) -> http.HttpResponseBase:
        stream = request.GET.get('stream', 'out')
        answer = self.api.output(server_id, command_id, stream=stream)
        return transfers.download(answer, f'{command_id}.{stream}')


class File(Endpoint):
    """A file of a server."""

    def get(
        self, request: http.HttpRequest, server_id: str
    ) -> http.HttpResponseBase:
        path = request.GET.get('path', '')
        return transfers.fetch(self.api, server_id, path)

    def post(
        self, request: http.HttpRequest, server_id: str
    ) -> http.HttpResponse:
        transfers.send(request, self.api, server_id)
        return http.JsonResponse({})


def shown(request: http.HttpRequest, command: client.Json) -> client.Json:
    """Return what is shown of a command, with the URL of its page."""
    ids = command['instance_uuid'], command['uuid']
    return {**words.summary(command), 'url': url_of(request, 'detail', *ids)}


def url_of(request: http.HttpRequest, name: str, *ids: str) -> str:
    """Return the URL of a page of the panel that a call is made in."""
    # The project's or the admin's.
    panel = request.resolver_match.namespace
    return str(urls.reverse(f'{panel}:{name}', args=ids))


def given(request: http.HttpRequest, *names: str) -> dict[str, str]:
    """Return those of some parameters that the URL of a request has."""
    return {name: request.GET[name] for name in names if name in request.GET}


def json_of(request: http.HttpRequest) -> dict[str, Any]:
    """Return the object that a request has as JSON.

    Django would refuse a body that is larger than it takes of a form.
    """
    data = request.read(_MAX_JSON + 1)
    try:
        if len(data) > _MAX_JSON:
            raise client.Problem(413, _('The request is too large.'))
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise client.Problem(400, _('The request is not JSON.'))
    return body


def _refusal(problem: client.Problem) -> http.JsonResponse:
    response = http.JsonResponse(
        {'message': problem.message}, status=problem.status
    )
    if problem.retry_after:
        response['Retry-After'] = problem.retry_after
    return response
