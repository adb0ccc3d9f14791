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

"""Recognizes a POST that its caller repeats, by its Idempotency-Key.

The same key of another project or user, or for another server, is another key.
"""

import hashlib
import hmac
import json
import secrets
from typing import NoReturn

import webob.exc

from guest_agent_ext import nova_types
from guest_agent_ext.api import command_request
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import keys

MAX_LENGTH = 255


class Key:
    """An Idempotency-Key and the body of its request.

    :param text: value of the header
    :param body: parsed body, which has secrets
    """

    def __init__(
        self,
        context: nova_types.RequestContext,
        server_id: str,
        text: str,
        body: command_request.Body,
    ) -> None:
        parts = [context.project_id, context.user_id, server_id, text]
        self._scope = hashlib.sha256(_serialized(parts)).hexdigest()
        self._body = _serialized(body)

    def find(self) -> str | None:
        """Return the uuid of the command that has this key, if any.

        :raises webob.exc.HTTPUnprocessableEntity: that command had another
            body
        """
        found = keys.find(self._scope)
        if found is None:
            return None
        if not hmac.compare_digest(
            found.body_hash, self._hash(found.body_key)
        ):
            raise webob.exc.HTTPUnprocessableEntity(
                explanation=(
                    'This %s was used with another body, for command %s; a '
                    'new '
                    'command needs a new key'
                    % (wsgi.IDEMPOTENCY_KEY, found.command_uuid)
                )
            )
        return found.command_uuid

    def columns(self) -> dict[str, str]:
        """Return the columns to record."""
        body_key = secrets.token_hex(32)
        return {
            'scope': self._scope,
            'body_key': body_key,
            'body_hash': self._hash(body_key),
        }

    def _hash(self, body_key: str) -> str:
        # Each row has a key of its own: an unkeyed hash would reveal a body
        # with few possible values, and which rows have the same body.
        return hmac.digest(bytes.fromhex(body_key), self._body, 'sha256').hex()


def key_of(
    req: nova_types.Request,
    server: nova_types.InstanceMapping,
    body: command_request.Body,
) -> Key | None:
    """Return the key of a request, None if the request has none.

    :raises webob.exc.HTTPBadRequest: the key is too long, or empty
    """
    text = req.headers.get(wsgi.IDEMPOTENCY_KEY)
    if text is None:
        return None
    if not 1 <= len(text) <= MAX_LENGTH:
        validation.bad_request(
            '%s must have 1 to %d characters, not %d'
            % (wsgi.IDEMPOTENCY_KEY, MAX_LENGTH, len(text))
        )
    return Key(wsgi.context_of(req), server.instance_uuid, text, body)


def gone(uuid: str) -> NoReturn:
    """Answer 410: the command of a key has been deleted.

    :param uuid: uuid of the command
    """
    raise webob.exc.HTTPGone(
        explanation=(
            'Command %s, which this %s was used for, has been deleted; a new '
            'command needs a new key' % (uuid, wsgi.IDEMPOTENCY_KEY)
        )
    )


def _serialized(value: object) -> bytes:
    """Return bytes that are the same for all spellings of a JSON value."""
    return json.dumps(value, sort_keys=True).encode()
