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

"""The URLs of the admin's panel."""

from django import urls

from guest_agent_ext.dashboard import endpoints
from guest_agent_ext.dashboard import urls as common
from guest_agent_ext.dashboard import views

urlpatterns = [
    *common.patterns(views.Incidents, 'admin'),
    urls.path('calls/hosts/', endpoints.Hosts.as_view(), name='hosts'),
]
