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

"""The pages about runs: one command in many servers."""

import collections
from collections.abc import Mapping
from typing import Any
import uuid

from django.utils.translation import gettext_lazy as _
from horizon.utils import functions

from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import listing
from guest_agent_ext.dashboard import rights
from guest_agent_ext.dashboard import run_words
from guest_agent_ext.dashboard import views
from guest_agent_ext.dashboard import words


class Runs(views.Page):
    """The runs of a project."""

    section = 'runs'
    template_name = 'guest_agent/runs.html'
    page_title = _('Runs')

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        filters = listing.Filters.of(
            self.request, ('status',), {}, run_words.STATUSES
        )
        size = functions.get_page_size(self.request)
        page = listing.page_of_runs(client.Client(self.request), filters, size)
        can = context['rights']
        return {
            **context,
            'filters': filters,
            'filter_url': context['runs_url'],
            'page': page,
            'statuses': run_words.STATUSES,
            'runs': [
                {
                    **item,
                    'url': self.url('run', item['uuid']),
                    'call': self.url('run_call', item['uuid']),
                    'can_cancel': can.cancel_run and not item['has_ended'],
                    'can_delete': can.delete_run and item['has_ended'],
                }
                for item in page.items
            ],
            'new_url': self.url('new_run'),
            'next_query': filters.query(page.marker) if page.marker else '',
            'first_query': filters.query('') if filters.marker else '',
        }


class NewRun(views.Page):
    """The form that starts a run."""

    template_name = 'guest_agent/new_run.html'
    page_title = _('New run')

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        if not context['rights'].start_run:
            return context
        names = client.Client(self.request).server_names()
        return {
            **context,
            'servers': _labels(names),
            'is_cut_off': len(names) >= client.MAX_NAMES,
            'config': {'runs': self.url('run_calls'), 'again': self._again()},
        }

    def _again(self) -> str:
        """Return the URL of the run that is to be run again, if any."""
        try:
            run_id = uuid.UUID(self.request.GET.get('again', ''))
        except ValueError:
            return ''
        return self.url('run_call', str(run_id))


class Run(views.Page):
    """One run."""

    template_name = 'guest_agent/run.html'
    page_title = _('Run')

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        run_id = str(self.kwargs['run_id'])
        api = client.Client(self.request)
        try:
            run = api.run(run_id)
        except client.Problem as problem:
            return {**context, 'problem': problem.message}
        can = rights.of(self.request, run['project_id'])
        filters = listing.Filters.of(self.request, ('status',), {})
        call = self.url('run_call', run_id)
        return {
            **context,
            'rights': can,
            'run': run,
            'shown': run_words.summary(run),
            **views.told(run.get('arguments') or {}),
            'filters': filters,
            'filter_url': self.url('run', run_id),
            'page': listing.Page(),
            'statuses': words.STATUSES,
            'times': [
                (label, words.shown_time(run[name]))
                for label, name in (
                    (_('Accepted'), 'created_at'),
                    (_('Ended'), 'finished_at'),
                )
            ],
            'call': call,
            'again_url': f'{self.url("new_run")}?again={run_id}',
            'config': {
                'run': call,
                'status': filters.values['status'],
                'marker': filters.marker,
                'cancel': can.cancel_run,
                'names': api.server_names(),
            },
        }


def _labels(names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return ids of servers and texts that tell them apart, by name."""
    number = collections.Counter(names.values())
    return [
        (server_id, name if number[name] == 1 else f'{name} ({server_id[:8]})')
        for server_id, name in sorted(
            names.items(), key=lambda item: (item[1], item[0])
        )
    ]
