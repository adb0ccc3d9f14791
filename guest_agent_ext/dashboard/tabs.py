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

"""The tab "Guest" of the page of a server."""

import logging
from typing import Any

from django import http
from django.middleware import csrf
from django.templatetags import static
from django.utils.translation import gettext_lazy as _
from horizon import tabs

from guest_agent_ext.dashboard import rights
from guest_agent_ext.dashboard import slots
from guest_agent_ext.dashboard import views

LOG = logging.getLogger(__name__)

_XTERM = 'guest_agent/xterm/xterm'


class GuestTab(tabs.Tab):
    """Runs commands in a server, and shows what its guest agent tells."""

    name = _('Guest')
    slug = 'guest'
    template_name = 'guest_agent/tab.html'
    # Other tabs need not wait for it.
    preload = False
    dashboard = 'project'

    def allowed(self, request: http.HttpRequest) -> bool:
        return self._rights(request).any_of_server

    def get_context_data(self, request: http.HttpRequest) -> dict[str, Any]:
        # What is raised here is lost: Horizon shows an error about a dict.
        try:
            return self._context(request)
        except Exception:
            LOG.exception('The tab of a server cannot be shown')
            return {'has_failed': True}

    def _rights(self, request: http.HttpRequest) -> rights.Rights:
        instance = self.tab_group.kwargs['instance']
        return rights.of(request, getattr(instance, 'tenant_id', None))

    def _context(self, request: http.HttpRequest) -> dict[str, Any]:
        server_id = str(self.tab_group.kwargs['instance'].id)
        can = self._rights(request)
        has_threads = slots.transfers.number > 0
        return {
            'rights': can,
            # Horizon gives a tab none.
            'csrf': csrf.get_token(request),
            'config': {
                **views.config(self.dashboard, server_id, can),
                'again': request.GET.get('again', ''),
                'xterm': static.static(_XTERM + '.js'),
                'xterm_style': static.static(_XTERM + '.css'),
            },
            'can_read_files': can.read_file and has_threads,
            'can_write_files': can.write_file and has_threads,
            'can_open_terminal': can.open_terminal,
            'history_url': views.history_url(self.dashboard, server_id),
        }


class AdminGuestTab(GuestTab):
    """The same among the pages of admins."""

    dashboard = 'admin'
