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

"""The Django application of the plug-in."""

import pathlib

from django import apps
from django.conf import settings
from django.utils.translation import gettext_lazy as _

#: Horizon's name for our rules.
POLICY_SCOPE = 'guest-agent'

_DEFAULTS = pathlib.Path(__file__).parent / 'conf/default_policies.yaml'


class GuestAgentConfig(apps.AppConfig):
    """Tells Horizon of the policy rules.

    The rules are Nova's: an operator overrides them in Nova's policy file,
    and Horizon has a copy of that.
    """

    name = 'guest_agent_ext.dashboard'
    label = 'guest_agent'
    verbose_name = _('Guest commands')

    def ready(self) -> None:
        for setting, default in (
            ('POLICY_FILES', 'nova_policy.yaml'),
            ('POLICY_DIRS', []),
        ):
            known = getattr(settings, setting)
            known.setdefault(POLICY_SCOPE, known.get('compute', default))
        settings.DEFAULT_POLICY_FILES.setdefault(POLICY_SCOPE, str(_DEFAULTS))
