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

"""The pages of the two panels."""

from collections.abc import Mapping
import shlex
from typing import Any

from django import urls
from django.middleware import csrf
from django.utils.translation import gettext_lazy as _
from horizon import views
from horizon.utils import functions

from guest_agent_ext.dashboard import client
from guest_agent_ext.dashboard import listing
from guest_agent_ext.dashboard import rights
from guest_agent_ext.dashboard import words

#: Where each dashboard has its pages of servers.
_INSTANCE_PAGES = {
    'project': 'horizon:project:instances:detail',
    'admin': 'horizon:admin:instances:detail',
}
_TAB = 'instance_details__guest'

#: Statuses that operators look for.
_SHORTCUTS = ('LOST', 'FAILED', 'TIMED_OUT', 'RUNNING', 'PENDING')

#: Arguments of a command, beside what it runs, and how they are called.
_FACTS = {
    'path': _('Path'),
    'size': _('Size in bytes'),
    'mode': _('Permissions'),
    'user': _('User'),
    'cwd': _('Directory'),
    'timeout': _('Timeout in seconds'),
    'start_timeout': _('To be started within seconds'),
    'env': _('Environment (names)'),
    'input_bytes': _('Input in bytes'),
    'output_keep': _('Output that is kept'),
    'keys': _('Keys'),
    'minimum': _('Smallest range in bytes'),
}


class Page(views.HorizonTemplateView):
    """A page of one of the panels.

    :cvar dashboard: ``project`` or ``admin``
    :cvar section: ``commands`` or ``runs``, if the page is about all of them
    """

    dashboard = 'project'
    section = ''

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return {
            **super().get_context_data(**kwargs),
            'rights': rights.of(self.request),
            'section': self.section,
            'index_url': self.url('index'),
            'runs_url': runs_url(),
            # The cookie that has it need not be there yet.
            'csrf': csrf.get_token(self.request),
        }

    def url(self, name: str, *arguments: str) -> str:
        """Return the URL of a page or a call of the panel."""
        return str(
            urls.reverse(
                f'horizon:{self.dashboard}:guest_commands:{name}',
                args=arguments,
            )
        )

    def _listed(
        self, page: listing.Page, names: Any, can: rights.Rights
    ) -> list[dict[str, Any]]:
        """Return what is shown of the commands of a page."""
        return [
            {
                **item,
                'server_name': names.get(item['server_id'])
                or item['server_id'],
                'server_url': instance_url(self.dashboard, item['server_id']),
                'url': self.url('detail', item['server_id'], item['uuid']),
                'call': self.url('command', item['server_id'], item['uuid']),
                'can_cancel': can.cancel and not item['has_ended'],
                'can_delete': can.delete and item['has_ended'],
            }
            for item in page.items
        ]


class History(Page):
    """The commands of all servers of a project."""

    section = 'commands'
    template_name = 'guest_agent/history.html'
    page_title = _('Guest commands')

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        filters = listing.Filters.of(
            self.request, ('server', 'status', 'since'), {}
        )
        api = client.Client(self.request)
        size = functions.get_page_size(self.request)
        page = listing.page(api, filters, size)
        names = api.server_names()
        return {
            **context,
            'filters': filters,
            'page': page,
            'statuses': words.STATUSES,
            'filter_url': context['index_url'],
            'is_unknown_server': filters.values['server'] not in ('', *names),
            'servers': sorted(names.items(), key=lambda item: item[1]),
            'commands': self._listed(page, names, context['rights']),
            'next_query': filters.query(page.marker) if page.marker else '',
            'first_query': filters.query('') if filters.marker else '',
        }


class Incidents(Page):
    """The hosts of a cloud, and what went wrong in all of its projects."""

    dashboard = 'admin'
    template_name = 'guest_agent/incidents.html'
    page_title = _('Guest commands')

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        filters = listing.Filters.of(
            self.request,
            ('status', 'project_id', 'host', 'since'),
            {'status': 'LOST'},
        )
        api = client.Client(self.request)
        size = functions.get_page_size(self.request)
        page = listing.page(api, filters, size)
        names = api.server_names(all_projects=True) if page.items else {}
        hosts, hosts_problem = self._hosts(api)
        return {
            **context,
            'hosts': hosts,
            'hosts_problem': hosts_problem,
            'config': {'hosts': self.url('hosts')},
            'is_admin_page': True,
            'shortcuts': _SHORTCUTS,
            'filters': filters,
            'page': page,
            'statuses': words.STATUSES,
            'filter_url': context['index_url'],
            'commands': self._listed(page, names, context['rights']),
            'next_query': filters.query(page.marker) if page.marker else '',
            'first_query': filters.query('') if filters.marker else '',
        }

    def _hosts(self, api: client.Client) -> tuple[list[client.Json], str]:
        try:
            found = api.hosts()
        except client.Problem as problem:
            return [], problem.message
        return [words.host(each) for each in found], ''


class Command(Page):
    """One command."""

    template_name = 'guest_agent/command.html'
    page_title = _('Guest command')

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = super().get_context_data(**kwargs)
        server_id, command_id = (
            str(self.kwargs[name]) for name in ('server_id', 'command_id')
        )
        api = client.Client(self.request)
        try:
            command = api.command(server_id, command_id)
        except client.Problem as problem:
            return {**context, 'problem': problem.message}
        can = rights.of(self.request, command['project_id'])
        arguments = command.get('arguments') or {}
        shown = words.summary(command)
        return {
            **context,
            'rights': can,
            'command': command,
            'shown': shown,
            **told(arguments),
            'times': [
                (label, words.shown_time(command.get(name)))
                for label, name in (
                    (_('Accepted'), 'created_at'),
                    (_('Started'), 'started_at'),
                    (_('Ended'), 'finished_at'),
                )
            ],
            'run_url': self._run_url(command, can),
            'has_output': command['type'] == 'exec' and can.read_output,
            'server_name': self._server_name(api, server_id),
            'server_url': instance_url(self.dashboard, server_id),
            'config': {
                **config(self.dashboard, server_id, can),
                'command': command_id,
            },
            'call': self.url('command', server_id, command_id),
            'download_url': self.url('download', server_id, command_id),
        }

    def _run_url(self, command: client.Json, can: rights.Rights) -> str:
        """Return the URL of the run that a command is of, if there is one."""
        run_id = command.get('run_uuid')
        # Admins have no pages of runs.
        if not run_id or not can.show_run or self.dashboard != 'project':
            return ''
        return self.url('run', run_id)

    def _server_name(self, api: client.Client, server_id: str) -> str:
        try:
            return str(api.server(server_id)['name'])
        except client.Problem:
            return server_id


def told(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a page shows of the arguments of a command or of a run."""
    argv = arguments.get('command')
    return {
        'argv': argv,
        'quoted': shlex.join(argv or []),
        'facts': [
            (label, _as_text(arguments[name]))
            for name, label in _FACTS.items()
            if name in arguments
        ],
    }


def runs_url() -> str:
    """Return the URL of the runs of a project."""
    return str(urls.reverse('horizon:project:guest_commands:runs'))


def instance_url(dashboard: str, server_id: str) -> str:
    """Return the URL of the tab of a server."""
    page = urls.reverse(_INSTANCE_PAGES[dashboard], args=[server_id])
    return f'{page}?tab={_TAB}'


def config(
    dashboard: str, server_id: str, can: rights.Rights
) -> dict[str, Any]:
    """Return what the script needs to know of a server."""
    panel = f'horizon:{dashboard}:guest_commands'
    return {
        'calls': urls.reverse(f'{panel}:server', args=[server_id]),
        'cancel': can.cancel,
        'delete': can.delete,
        'output': can.read_output,
        'run': can.run,
    }


def history_url(dashboard: str, server_id: str) -> str:
    """Return the URL of all commands of a server."""
    # That of admins is about all projects, and has no filter of a server.
    if dashboard == 'admin':
        return ''
    index = urls.reverse('horizon:project:guest_commands:index')
    return f'{index}?server={server_id}'


def _as_text(value: Any) -> str:
    return ', '.join(value) if isinstance(value, list) else str(value)
