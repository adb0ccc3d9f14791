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

The same key of another project or user, or for another server, is another key,
and so is one for a run.
"""

import hashlib
import hmac
import json
import secrets
from typing import NoReturn

import webob.exc

from guest_agent_ext import nova_types
from guest_agent_ext.api import validation
from guest_agent_ext.api import wsgi
from guest_agent_ext.db import keys

MAX_LENGTH = 255
#: The place of the keys of runs, which no server has as its uuid.
RUNS = 'runs'


class Key:
    """An Idempotency-Key and the body of its request.

    :param place: uuid of the server that the command is for, RUNS for a run
    :param text: value of the header
    :param body: parsed body, which has secrets
    """

    def __init__(
        self,
        context: nova_types.RequestContext,
        place: str,
        text: str,
        body: object,
    ) -> None:
        self._kind = 'run' if place == RUNS else 'command'
        parts = [context.project_id, context.user_id, place, text]
        self._scope = hashlib.sha256(_serialized(parts)).hexdigest()
        self._body = _serialized(body)

    def find(self) -> str | None:
        """Return the uuid of the command or run that has this key, if any.

        :raises webob.exc.HTTPUnprocessableEntity: that had another body
        """
        found = keys.find(self._scope)
        if found is None:
            return None
        if not hmac.compare_digest(
            found.body_hash, self._hash(found.body_key)
        ):
            raise webob.exc.HTTPUnprocessableEntity(
                explanation='This %s was used with another body, for %s %s; a '
                'new %s needs a new key'
                % (
                    wsgi.IDEMPOTENCY_KEY,
                    self._kind,
                    found.command_uuid,
                    self._kind,
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

    def gone(self, uuid: str) -> NoReturn:
        """Answer 410: what has this key has been deleted.

        :param uuid: uuid of the command or run
        """
        raise webob.exc.HTTPGone(
            explanation='The %s %s, which this %s was used for, has been '
            'deleted; a new %s needs a new key'
            % (self._kind, uuid, wsgi.IDEMPOTENCY_KEY, self._kind)
        )

    def _hash(self, body_key: str) -> str:
        # Each row has a key of its own: an unkeyed hash would reveal a body
        # with few possible values, and which rows have the same body.
        return hmac.digest(bytes.fromhex(body_key), self._body, 'sha256').hex()


def key_of(req: nova_types.Request, place: str, body: object) -> Key | None:
    """Return the key of a request, None if the request has none.

    :param place: uuid of the server that the command is for, RUNS for a run
    :param body: parsed body
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
    return Key(wsgi.context_of(req), place, text, body)


def _serialized(value: object) -> bytes:
    """Return bytes that are the same for all spellings of a JSON value."""
    return json.dumps(value, sort_keys=True).encode()
