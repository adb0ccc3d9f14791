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

"""The metrics of nova-api, for admins."""

import webob

from guest_agent_ext import metrics
from guest_agent_ext import nova_types
from guest_agent_ext import policies
from guest_agent_ext.api import raw
from guest_agent_ext.api import schemas
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi

_SHOWN = metrics.registry(metrics.API)


class MetricsController(wsgi.Controller):
    """``/guest-agent/metrics``"""

    @wsgi.response(200)
    @wsgi.expected_errors(400, 403)
    @policies.authorized(policies.METRICS)
    @validation.query_schema(schemas.no_query)
    def show(self, req: nova_types.Request) -> webob.Response:
        """Show the metrics of nova-api in the text format of Prometheus."""
        return raw.response(
            metrics.text(_SHOWN), {'Content-Type': metrics.CONTENT_TYPE}
        )
