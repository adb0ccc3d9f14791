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

"""The policy rules, and how they are asked.

The rules are registered into Nova's own enforcer: they stand in Nova's policy
file, follow its reloads, and may build on Nova's rules.
"""

from collections.abc import Callable
import functools
import threading
from typing import Any
from typing import cast
from typing import TypeVar

from nova import policy as nova_policy
from nova.policies import base
from oslo_policy import policy

_PREFIX = 'os_compute_api:guest-agent:'
_SERVER = '/servers/{server_id}/guest-agent'

USE = _PREFIX + 'use'
CREATE = _PREFIX + 'commands:create'
INDEX = _PREFIX + 'commands:index'
SHOW = _PREFIX + 'commands:show'
CANCEL = _PREFIX + 'commands:cancel'
DELETE = _PREFIX + 'commands:delete'
INDEX_ALL = _PREFIX + 'commands:index-all'
OUTPUT = _PREFIX + 'commands:output'
FILE_READ = _PREFIX + 'file-read'
FILE_WRITE = _PREFIX + 'file-write'
AGENT_SHOW = _PREFIX + 'agent:show'
HOSTS_INDEX = _PREFIX + 'hosts:index'

_LOCK = threading.Lock()

_Method = TypeVar('_Method', bound=Callable[..., Any])


def _rule(
    name: str, check: str, description: str, *operations: tuple[str, str]
) -> policy.DocumentedRuleDefault:
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=check,
        description=description,
        operations=[
            {'method': method, 'path': path} for method, path in operations
        ],
        scope_types=['project'],
    )


_RULES = (
    policy.RuleDefault(
        USE,
        base.PROJECT_MEMBER_OR_ADMIN,
        'Run commands in a server, and see what was run and what came of it. '
        'Every rule that lets run, write or reveal builds on this one. Who is '
        "not an admin never reaches another project's server, whatever this "
        'rule says. To restrict it to a role: "(role:guest_exec and '
        'project_id:%(project_id)s) or rule:context_is_admin".',
        scope_types=['project'],
    ),
    _rule(
        CREATE,
        'rule:' + USE,
        'Run a command in a server.',
        ('POST', _SERVER + '/commands'),
    ),
    _rule(
        INDEX,
        base.PROJECT_READER_OR_ADMIN,
        'List the commands of a server. Their arguments are shown to those '
        'only whom ' + USE + ' lets.',
        ('GET', _SERVER + '/commands'),
    ),
    _rule(
        SHOW,
        base.PROJECT_READER_OR_ADMIN,
        'Show a command of a server. Its arguments and its output are shown '
        'to those only whom ' + USE + ' lets.',
        ('GET', _SERVER + '/commands/{command_id}'),
    ),
    _rule(
        CANCEL,
        'rule:' + USE,
        'Cancel a command of a server.',
        ('POST', _SERVER + '/commands/{command_id}/action'),
    ),
    _rule(
        DELETE,
        'rule:' + USE,
        'Delete a command of a server that has ended, with its output.',
        ('DELETE', _SERVER + '/commands/{command_id}'),
    ),
    _rule(
        INDEX_ALL,
        base.PROJECT_READER_OR_ADMIN,
        'List the commands of all servers of a project. Other projects than '
        'their own, and hosts, are for admins only, whatever this rule says.',
        ('GET', '/guest-agent/commands'),
    ),
    _rule(
        OUTPUT,
        'rule:' + USE,
        'Read what a command of a server has written, also while it runs.',
        ('GET', _SERVER + '/commands/{command_id}/output'),
    ),
    _rule(
        FILE_READ,
        'rule:' + USE,
        'Read a file of a server.',
        ('GET', _SERVER + '/file-read'),
    ),
    _rule(
        FILE_WRITE,
        'rule:' + USE,
        'Write a file of a server.',
        ('POST', _SERVER + '/file-write'),
    ),
    _rule(
        AGENT_SHOW,
        base.PROJECT_READER_OR_ADMIN,
        'Show whether commands can be run in a server, or why not.',
        ('GET', _SERVER),
    ),
    _rule(
        HOSTS_INDEX,
        base.ADMIN,
        'List the guest-agent-compute services.',
        ('GET', '/guest-agent/hosts'),
    ),
)


def list_rules() -> tuple[Any, ...]:
    """Return all rules, also for oslopolicy-sample-generator."""
    return _RULES


def authorize(context: Any, rule: str, project_id: str) -> None:
    """Refuse the request of a caller whom the policy does not let.

    :param project_id: the project of what the request is about
    :raises nova.exception.PolicyNotAuthorized: becomes a 403
    """
    _ensure_registered()
    context.can(rule, target={'project_id': project_id})


def allows(context: Any, rule: str, project_id: str) -> bool:
    """Tell whether the policy lets a caller."""
    _ensure_registered()
    return bool(
        context.can(rule, target={'project_id': project_id}, fatal=False)
    )


def authorized(rule: str) -> Callable[[_Method], _Method]:
    """Have a method that is about no project called if its caller may."""

    def decorate(method: _Method) -> _Method:
        @functools.wraps(method)
        def wrapper(self: Any, req: Any, **kwargs: Any) -> Any:
            context = req.environ['nova.context']
            authorize(context, rule, context.project_id)
            return method(self, req=req, **kwargs)

        return cast(_Method, wrapper)

    return decorate


def _ensure_registered() -> None:
    # At each request, because nova.policy.reset() drops the enforcer, and
    # never through nova.policy.get_enforcer(): in a running API that parses
    # the configuration again, without its files.
    nova_policy.init()
    enforcer = nova_policy._ENFORCER
    with _LOCK:
        if USE not in enforcer.registered_rules:
            enforcer.register_defaults(list_rules())
