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


"""Times that users give."""

import datetime

import iso8601
from osc_lib import exceptions


def in_utc(text: str) -> str:
    """Return a time as the API takes it.

    :param text: time by ISO 8601; local time if no zone is given
    :raises osc_lib.exceptions.CommandError: the text is no such time
    """
    try:
        found = _parsed(text)
        return found.astimezone(datetime.timezone.utc).strftime(
            '%Y-%m-%dT%H:%M:%SZ'
        )
    except (ValueError, OverflowError) as error:
        raise exceptions.CommandError(
            f'--since must be a time by ISO 8601, such as '
            f'2026-03-09T12:13:22Z or 2026-03-09, not {text}'
        ) from error


def _parsed(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        # It knows reduced dates, and Python 3.10 knows few other forms.
        return iso8601.parse_date(text, default_timezone=None)
