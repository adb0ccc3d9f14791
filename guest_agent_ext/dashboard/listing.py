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

"""Lists of commands and of runs: filters that stand in the URL, and pages."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import datetime
from typing import Any
from urllib import parse

from django import http
from django.utils import dateparse
from django.utils import timezone
from django.utils.translation import gettext as _

from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import run_words
from guest_agent_ext.dashboard import words

_API_TIME = '%Y-%m-%dT%H:%M:%SZ'


@dataclasses.dataclass
class Filters:
    """What a list is asked for.

    :ivar values: what the user chose, by the names of the parameters
    :ivar marker: uuid of the last row of the page before
    :ivar since: first time of acceptance, as the API has it
    :ivar problem: what is wrong with the choice, for the user
    """

    values: Mapping[str, str]
    marker: str = ''
    since: str = ''
    problem: str = ''

    @classmethod
    def of(
        cls,
        request: http.HttpRequest,
        names: Sequence[str],
        defaults: Mapping[str, str],
        statuses: Sequence[str] = words.STATUSES,
    ) -> 'Filters':
        """Read the filters from the URL of a request.

        :param names: filters that the page has
        :param defaults: values where the URL has no filter at all
        :param statuses: statuses that what is listed may have
        """
        query = request.GET
        values = {name: query.get(name, '').strip() for name in names}
        if not any(name in query for name in names):
            values.update(defaults)
        found = cls(values, query.get('marker', ''))
        if values.get('status') not in (None, '', *statuses):
            found.problem = _('There is no status of that name.')
            found.values = {**values, 'status': ''}
        if values.get('since'):
            found._read_since(values['since'])
        return found

    def query(self, marker: str) -> str:
        """Return the query of a page of the same list."""
        chosen = {name: value for name, value in self.values.items() if value}
        # An empty status in the URL is a choice too.
        chosen.setdefault('status', '')
        return parse.urlencode(
            chosen if not marker else {**chosen, 'marker': marker}
        )

    def _read_since(self, text: str) -> None:
        try:
            time = dateparse.parse_datetime(text)
        except ValueError:
            time = None
        if time is None:
            self.problem = _(
                'The time is not one: it looks like 2026-03-09T12:13.'
            )
            return
        if timezone.is_naive(time):
            time = timezone.make_aware(time)
        self.since = time.astimezone(datetime.timezone.utc).strftime(_API_TIME)


@dataclasses.dataclass
class Page:
    """A page of a list.

    :ivar items: what is shown of each command or run
    :ivar marker: uuid of the last one if there is a next page
    :ivar problem: why there is no list, for the user
    """

    items: Sequence[dict[str, Any]] = ()
    marker: str = ''
    problem: str = ''


def page(api: client.Client, filters: Filters, size: int) -> Page:
    """Return the page of commands that filters choose.

    :param size: maximum number of commands
    """
    params = _params(filters, size)
    try:
        if filters.values.get('server'):
            answer = _of_server(api, filters, params)
        else:
            answer = _of_projects(api, filters, params)
    except client.Problem as problem:
        return Page(problem=problem.message)
    return _page_of(answer, 'commands', words.summary)


def page_of_runs(api: client.Client, filters: Filters, size: int) -> Page:
    """Return the page of runs that filters choose.

    :param size: maximum number of runs
    """
    try:
        answer = api.runs(**_params(filters, size))
    except client.Problem as problem:
        return Page(problem=problem.message)
    return _page_of(answer, 'runs', run_words.summary)


def _params(filters: Filters, size: int) -> dict[str, str]:
    params = {'limit': str(size)}
    if filters.marker:
        params['marker'] = filters.marker
    if filters.values.get('status'):
        params['status'] = filters.values['status']
    return params


def _page_of(
    answer: client.Json,
    name: str,
    summary: Callable[[client.Json], dict[str, Any]],
) -> Page:
    """Return the page that an answer of the API has.

    :param name: name of the list in it
    """
    items = [summary(item) for item in answer[name]]
    has_next = bool(answer.get(f'{name}_links')) and bool(items)
    return Page(items, items[-1]['uuid'] if has_next else '')


def _of_projects(
    api: client.Client, filters: Filters, params: dict[str, str]
) -> client.Json:
    values = filters.values
    if filters.since:
        params['since'] = filters.since
    for name in ('project_id', 'host'):
        if values.get(name):
            params[name] = values[name]
    if 'project_id' in values and not values['project_id']:
        params['all_projects'] = 'true'
    return api.project_commands(**params)


def _of_server(
    api: client.Client, filters: Filters, params: dict[str, str]
) -> client.Json:
    """Return a page of a server's commands, cut off where they are too old."""
    answer = api.commands(filters.values['server'], **params)
    # Newest first, in a format whose texts sort as the times do.
    recent = [
        item
        for item in answer['commands']
        if item['created_at'] >= filters.since
    ]
    if len(recent) < len(answer['commands']):
        return {'commands': recent}
    return answer
