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

"""The options of the plugin in tempest.conf."""

from oslo_config import cfg

service_option = cfg.BoolOpt(
    'guest_agent',
    default=True,
    help='Whether Nova has the guest agent extension.',
)

guest_agent_group = cfg.OptGroup(
    name='guest_agent', title='Options of the guest agent extension'
)

GuestAgentGroup = [
    cfg.StrOpt(
        'image_ref',
        help="""
The image of the test servers: a Linux with a guest agent and the property
``hw_qemu_guest_agent=yes``. Default: ``[compute] image_ref``.
""",
    ),
    cfg.IntOpt(
        'boot_timeout',
        default=300,
        help='Seconds to wait for the guest agent of a new server.',
    ),
    cfg.IntOpt(
        'command_timeout',
        default=60,
        help='Seconds to wait for the end of a short command.',
    ),
    cfg.BoolOpt(
        'files',
        default=True,
        help='Whether the guest agent of the image allows access to files.',
    ),
]
