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

"""What a new cloud is given: services, users, limits, flavors, images."""

import pathlib
import tempfile
from typing import Any

from tools.stack import apis
from tools.stack import layout
from tools.stack import sections
from tools.testbed import debian
from tools.testbed import image

#: Nova's accounts in Keystone are those of all services.
_SERVICES = ('nova', 'glance', 'placement', 'neutron')

#: User, project and role. "second" is another member of the first's project.
USERS = (
    ('demo', 'demo', 'member'),
    ('second', 'demo', 'member'),
    ('reader', 'demo', 'reader'),
    ('manager', 'demo', 'manager'),
    ('other', 'other', 'member'),
)

#: Of Nova's resources it wants a limit for servers only.
LIMITS = {'servers': 50, 'guest_agent_commands': 1000}

FLAVOR, IMAGE = 'tiny', 'guest'

#: The name of the Debian guest's image and of the flavor with memory for it.
DEBIAN = 'debian'


def accounts(cloud: Any, place: layout.Layout) -> None:
    """Make the catalog, the users and the limits."""
    services = {
        api.name: (api.type, place.url(api.name, api.path)) for api in apis.ALL
    }
    services['nova'] = apis.NOVA_TYPE, place.url('nova', apis.NOVA_PATH)
    for name in _SERVICES:
        _endpoint(cloud, name, *services[name])
    roles = {role.name: role for role in cloud.identity.roles()}
    _service_users(cloud, place, roles)
    for user, project, role in USERS:
        _user(cloud, place, user, project, roles[role])
    _limits(cloud)


def guest_agent_endpoint(cloud: Any, place: layout.Layout) -> None:
    """Make the entry of guest-agent-api in the catalog."""
    _endpoint(
        cloud,
        'guest-agent',
        apis.GUEST_AGENT_TYPE,
        place.url('guest-agent', apis.GUEST_AGENT_PATH),
    )


def _endpoint(cloud: Any, name: str, kind: str, url: str) -> None:
    service = cloud.identity.find_service(
        name
    ) or cloud.identity.create_service(name=name, type=kind)
    if not list(cloud.identity.endpoints(service_id=service.id)):
        cloud.identity.create_endpoint(
            service_id=service.id,
            interface='public',
            url=url,
            region_id=sections.REGION,
        )


def _service_users(
    cloud: Any, place: layout.Layout, roles: dict[str, Any]
) -> None:
    for name in _SERVICES:
        for role in ('admin', 'service'):
            _user(cloud, place, name, 'service', roles[role])
    nova = cloud.identity.find_user('nova')
    # It reads the limits of every project.
    cloud.identity.assign_system_role_to_user(
        nova, roles['reader'], system='all'
    )


def _user(
    cloud: Any, place: layout.Layout, name: str, project: str, role: Any
) -> None:
    identity = cloud.identity
    owner = identity.find_project(project) or identity.create_project(
        name=project, domain_id='default'
    )
    user = identity.find_user(name) or identity.create_user(
        name=name, domain_id='default', password=place.password
    )
    identity.assign_project_role_to_user(owner, user, role)


def _limits(cloud: Any) -> None:
    nova = cloud.identity.find_service('nova')
    known = {
        limit.resource_name for limit in cloud.identity.registered_limits()
    }
    for name, value in LIMITS.items():
        if name not in known:
            cloud.identity.create_registered_limit(
                service_id=nova.id,
                region_id=sections.REGION,
                resource_name=name,
                default_limit=value,
            )


def flavor(cloud: Any, name: str = FLAVOR, ram: int = 192) -> None:
    """Make a flavor; only Debian writes to its root disk, of a GB.

    :param ram: MiB
    """
    if cloud.compute.find_flavor(name) is None:
        cloud.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=1)


def guest_image(cloud: Any, cache: pathlib.Path) -> None:
    """Upload the guest: a kernel, its file system in memory, an empty disk.

    :param cache: directory of the guest's image
    """
    if cloud.image.find_image(IMAGE) is not None:
        return
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(1024 * 1024)
        _upload_all(
            cloud,
            IMAGE,
            image.build(cache),
            pathlib.Path(disk.name),
            'ami',
            'ami',
        )


def debian_image(cloud: Any, cache: pathlib.Path) -> None:
    """Upload the Debian guest, and make a flavor with memory for it.

    :param cache: directory of the guest's image
    """
    flavor(cloud, DEBIAN, 512)
    if cloud.image.find_image(DEBIAN) is None:
        booted = debian.build(cache)
        assert booted.disk is not None
        _upload_all(cloud, DEBIAN, booted, booted.disk, 'qcow2', 'bare')


def _upload_all(
    cloud: Any,
    name: str,
    booted: image.Image,
    disk: pathlib.Path,
    kind: str,
    container: str,
) -> None:
    """Upload an image: its kernel, its initrd and a root disk.

    :param kind: Glance's word for what the disk is
    :param container: Glance's word for what the disk is in
    """
    kernel, ramdisk = (
        _upload(cloud, f'{name}-{part}', path, part_kind, part_kind)
        for part, path, part_kind in (
            ('kernel', booted.kernel, 'aki'),
            ('ramdisk', booted.initrd, 'ari'),
        )
    )
    _upload(
        cloud,
        name,
        disk,
        kind,
        container,
        kernel_id=kernel,
        ramdisk_id=ramdisk,
        os_command_line=booted.command_line,
        hw_qemu_guest_agent='yes',
    )


def _upload(
    cloud: Any,
    name: str,
    path: pathlib.Path,
    kind: str,
    container: str,
    **properties: str,
) -> str:
    made = cloud.image.create_image(
        name,
        filename=str(path),
        disk_format=kind,
        container_format=container,
        visibility='public',
        wait=True,
        **properties,
    )
    return str(made.id)
