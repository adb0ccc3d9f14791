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

"""The URLs of the project's panel."""

from django import urls

from guest_agent_ext.dashboard import run_endpoints
from guest_agent_ext.dashboard import run_views
from guest_agent_ext.dashboard import urls as common
from guest_agent_ext.dashboard import views

_CALLS = 'calls/runs/'
_CALL = _CALLS + '<uuid:run_id>/'

urlpatterns = [
    *common.patterns(views.History, 'project'),
    urls.path('runs/', run_views.Runs.as_view(), name='runs'),
    urls.path('runs/new/', run_views.NewRun.as_view(), name='new_run'),
    urls.path('runs/<uuid:run_id>/', run_views.Run.as_view(), name='run'),
    urls.path(_CALLS, run_endpoints.Runs.as_view(), name='run_calls'),
    urls.path(_CALL, run_endpoints.Run.as_view(), name='run_call'),
    urls.path(
        _CALL + 'cancel/', run_endpoints.Cancel.as_view(), name='cancel_run'
    ),
    urls.path(
        _CALL + 'progress/',
        run_endpoints.Progress.as_view(),
        name='run_progress',
    ),
]
