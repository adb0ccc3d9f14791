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

"""Has Horizon show Project > Compute > Guest commands, and the tabs."""

PANEL = 'guest_commands'
PANEL_DASHBOARD = 'project'
PANEL_GROUP = 'compute'
ADD_PANEL = 'guest_agent_ext.dashboard.project.panel.GuestCommands'
ADD_INSTALLED_APPS = ['guest_agent_ext.dashboard']
ADD_JS_FILES = [
    f'guest_agent/{name}.js'
    for name in (
        'calls',
        'text',
        'poll',
        'program',
        'output',
        'terminal',
        'files',
        'accounts',
        'runs',
        'hosts',
        'bulk',
        'guest',
    )
]
ADD_SCSS_FILES = ['guest_agent/guest_agent.scss']
EXTRA_TABS = {
    'openstack_dashboard.dashboards.project.instances.tabs'
    '.InstanceDetailTabs': ('guest_agent_ext.dashboard.tabs.GuestTab',),
    'openstack_dashboard.dashboards.admin.instances.tabs'
    '.AdminInstanceDetailTabs': (
        'guest_agent_ext.dashboard.tabs.AdminGuestTab',
    ),
}
