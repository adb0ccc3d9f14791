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

"""Declares the policy rules and checks them.

The rules are registered with Nova's own enforcer, so that operators override
them in Nova's policy file and may build on Nova's rules.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import threading
from typing import Any
from typing import cast
from typing import TypeVar

from nova import policy as nova_policy
from nova.policies import base
from oslo_policy import policy

from guest_agent_ext import command
from guest_agent_ext import nova_types

_PREFIX = 'os_compute_api:guest-agent:'
_SERVER = '/servers/{server_id}/guest-agent'
_RUNS = '/guest-agent/runs'

USE = _PREFIX + 'use'
CREATE = _PREFIX + 'commands:create'
CREATE_SET_PASSWORD = CREATE + ':set-password'
CREATE_SSH_KEYS = CREATE + ':ssh-keys'
CREATE_FSTRIM = CREATE + ':fstrim'
INDEX = _PREFIX + 'commands:index'
SHOW = _PREFIX + 'commands:show'
CANCEL = _PREFIX + 'commands:cancel'
DELETE = _PREFIX + 'commands:delete'
PROJECT_COMMANDS_INDEX = _PREFIX + 'commands:index-all'
INPUT = _PREFIX + 'commands:input'
SIGNAL = _PREFIX + 'commands:signal'
OUTPUT = _PREFIX + 'commands:output'
FILE_READ = _PREFIX + 'file-read'
FILE_WRITE = _PREFIX + 'file-write'
AGENT_SHOW = _PREFIX + 'agent:show'
DETAILS = _PREFIX + 'details'
HOSTS_INDEX = _PREFIX + 'hosts:index'
HOSTS_DELETE = _PREFIX + 'hosts:delete'
METRICS = _PREFIX + 'metrics'
RUNS_CREATE = _PREFIX + 'runs:create'
RUNS_INDEX = _PREFIX + 'runs:index'
RUNS_SHOW = _PREFIX + 'runs:show'
RUNS_CANCEL = _PREFIX + 'runs:cancel'
RUNS_DELETE = _PREFIX + 'runs:delete'

#: The rule of each type of command that is posted.
CREATE_RULES: Mapping[str, str] = {
    command.EXEC: CREATE,
    command.SET_PASSWORD: CREATE_SET_PASSWORD,
    command.SSH_KEYS_ADD: CREATE_SSH_KEYS,
    command.SSH_KEYS_REMOVE: CREATE_SSH_KEYS,
    command.FSTRIM: CREATE_FSTRIM,
}

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
        'Run commands in a server, and see their arguments, output and '
        'errors. The rules for calls that run commands, or read or write what '
        'is in the server, build on this rule. Only an admin reaches servers '
        'of another project, whatever this rule says. To require a role: '
        '"(role:guest_exec and project_id:%(project_id)s) or '
        'rule:context_is_admin".',
        scope_types=['project'],
    ),
    _rule(
        CREATE,
        'rule:' + USE,
        'Run a program in a server.',
        ('POST', _SERVER + '/commands'),
    ),
    _rule(
        CREATE_SET_PASSWORD,
        'rule:' + USE,
        'Set the password of a user of a server: commands of type '
        'set-password.',
        ('POST', _SERVER + '/commands'),
    ),
    _rule(
        CREATE_SSH_KEYS,
        'rule:' + USE,
        'Add and remove ssh keys of a user of a server: commands of type '
        'ssh-keys-add and ssh-keys-remove.',
        ('POST', _SERVER + '/commands'),
    ),
    _rule(
        CREATE_FSTRIM,
        'rule:' + USE,
        'Discard the unused blocks of the file systems of a server: commands '
        'of type fstrim.',
        ('POST', _SERVER + '/commands'),
    ),
    _rule(
        INDEX,
        base.PROJECT_READER_OR_ADMIN,
        'List the commands of a server. Arguments and errors are only '
        'included if the caller also passes ' + USE + '.',
        ('GET', _SERVER + '/commands'),
    ),
    _rule(
        SHOW,
        base.PROJECT_READER_OR_ADMIN,
        'Show a command of a server. Arguments, output and error are only '
        'included if the caller also passes ' + USE + '.',
        ('GET', _SERVER + '/commands/{command_id}'),
    ),
    _rule(
        CANCEL,
        'rule:' + USE,
        'Act on a command of a server: cancel it, or with the rule for '
        'commands:signal do less.',
        ('POST', _SERVER + '/commands/{command_id}/action'),
    ),
    _rule(
        SIGNAL,
        'rule:' + USE,
        'Send a signal to a command of a server, or set the size of its '
        'terminal.',
        ('POST', _SERVER + '/commands/{command_id}/action'),
    ),
    _rule(
        INPUT,
        'rule:' + USE,
        'Send input to an attached command of a server.',
        ('POST', _SERVER + '/commands/{command_id}/input'),
    ),
    _rule(
        DELETE,
        'rule:' + USE,
        'Delete a command of a server that has ended, with its output.',
        ('DELETE', _SERVER + '/commands/{command_id}'),
    ),
    _rule(
        PROJECT_COMMANDS_INDEX,
        base.PROJECT_READER_OR_ADMIN,
        'List the commands of all servers of a project. Only an admin may '
        'list those of another project or filter by host, whatever this rule '
        'says.',
        ('GET', '/guest-agent/commands'),
    ),
    _rule(
        RUNS_CREATE,
        'rule:' + USE,
        'Run a command in many servers of a project. The rule for the type of '
        'the command must allow it, too.',
        ('POST', _RUNS),
    ),
    _rule(
        RUNS_INDEX,
        'rule:' + USE,
        'List the runs of a project. Only an admin may list those of another '
        'project, whatever this rule says.',
        ('GET', _RUNS),
    ),
    _rule(
        RUNS_SHOW,
        'rule:' + USE,
        'Show a run, and list its commands. Arguments and errors of commands '
        'are only included if the caller also passes ' + USE + '.',
        ('GET', _RUNS + '/{run_id}'),
        ('GET', _RUNS + '/{run_id}/commands'),
    ),
    _rule(
        RUNS_CANCEL,
        'rule:' + USE,
        'Cancel a run and its commands.',
        ('POST', _RUNS + '/{run_id}/action'),
    ),
    _rule(
        RUNS_DELETE,
        'rule:' + USE,
        'Delete a run that has ended, with its commands.',
        ('DELETE', _RUNS + '/{run_id}'),
    ),
    _rule(
        OUTPUT,
        'rule:' + USE,
        'Read the output of a command of a server, also while the command '
        'runs.',
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
        'Show whether commands can run in a server, or why not.',
        ('GET', _SERVER),
    ),
    _rule(
        DETAILS,
        base.PROJECT_READER_OR_ADMIN,
        'Show what the guest agent of a server tells of the guest: its '
        'system, clock, users, network, file systems, disks and processors, '
        'and the public ssh keys of a user.',
        ('GET', _SERVER + '/details'),
    ),
    _rule(
        HOSTS_INDEX,
        base.ADMIN,
        'List the guest-agent-compute services.',
        ('GET', '/guest-agent/hosts'),
    ),
    _rule(
        HOSTS_DELETE,
        base.ADMIN,
        'Remove the guest-agent-compute service of a host that is down and '
        'has no commands left.',
        ('DELETE', '/guest-agent/hosts/{host}'),
    ),
    _rule(
        METRICS,
        base.ADMIN,
        'Read the metrics of nova-api, for Prometheus.',
        ('GET', '/guest-agent/metrics'),
    ),
)


def list_rules() -> Sequence[policy.RuleDefault]:
    """Return all rules; oslopolicy-sample-generator calls this, too."""
    return _RULES


def authorize(
    context: nova_types.RequestContext, rule: str, project_id: str | None
) -> None:
    """Refuse a caller whom a rule does not allow to proceed.

    :param project_id: project of the server, or of the caller where the
        request concerns no server
    :raises nova.exception.PolicyNotAuthorized: the answer is 403
    """
    _ensure_registered()
    context.can(rule, target={'project_id': project_id})


def allows(
    context: nova_types.RequestContext, rule: str, project_id: str
) -> bool:
    """Return whether a rule allows a caller to proceed.

    :param project_id: project of the server
    """
    _ensure_registered()
    return bool(
        context.can(rule, target={'project_id': project_id}, fatal=False)
    )


def authorized(rule: str) -> Callable[[_Method], _Method]:
    """Check the caller of a method that concerns no server.

    :param rule: policy rule, checked for the caller's project
    """

    def decorate(method: _Method) -> _Method:
        @functools.wraps(method)
        def wrapper(
            self: object, req: nova_types.Request, **kwargs: Any
        ) -> Any:
            context: nova_types.RequestContext = req.environ['nova.context']
            authorize(context, rule, context.project_id)
            return method(self, req=req, **kwargs)

        return cast(_Method, wrapper)

    return decorate


def _ensure_registered() -> None:
    # At each request, because nova.policy.reset() drops the enforcer; not
    # through nova.policy.get_enforcer(), which in a running API parses the
    # configuration again, without the files.
    nova_policy.init()
    enforcer = nova_policy._ENFORCER
    with _LOCK:
        if USE not in enforcer.registered_rules:
            enforcer.register_defaults(list_rules())
