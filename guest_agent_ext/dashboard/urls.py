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

"""The URLs that both panels have."""

from collections.abc import Sequence

from django import urls

from guest_agent_ext.dashboard import endpoints
from guest_agent_ext.dashboard import views

_SERVER = 'servers/<uuid:server_id>/'
_COMMAND = _SERVER + 'commands/<uuid:command_id>/'


def patterns(
    index: type[views.Page], dashboard: str
) -> Sequence[urls.URLPattern]:
    """Return the URLs of a panel.

    :param index: its first page
    :param dashboard: ``project`` or ``admin``
    """
    return [
        urls.path('', index.as_view(), name='index'),
        urls.path(
            'command/<uuid:server_id>/<uuid:command_id>/',
            views.Command.as_view(dashboard=dashboard),
            name='detail',
        ),
        urls.path(_SERVER, endpoints.Agent.as_view(), name='server'),
        urls.path(
            _SERVER + 'details/', endpoints.Details.as_view(), name='details'
        ),
        urls.path(
            _SERVER + 'commands/',
            endpoints.Commands.as_view(),
            name='commands',
        ),
        urls.path(_SERVER + 'file/', endpoints.File.as_view(), name='file'),
        urls.path(_COMMAND, endpoints.Command.as_view(), name='command'),
        *(
            urls.path(f'{_COMMAND}{name}/', view.as_view(), name=name)
            for name, view in (
                ('cancel', endpoints.Cancel),
                ('resize', endpoints.Resize),
                ('input', endpoints.Input),
                ('stream', endpoints.Stream),
                ('download', endpoints.Download),
            )
        ),
    ]
