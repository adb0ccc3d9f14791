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

"""What libraries would log of what tenants send and get."""

import logging

#: Of oslo.messaging: it logs, whole, an answer that nobody waits for any
#: more. That of a claim has the command in it.
_ANSWERS = 'oslo_messaging._drivers.amqpdriver'


def hide_answers() -> None:
    """Have no log tell what an answer that came too late says."""
    logging.getLogger(_ANSWERS).addFilter(_has_no_message)


def hide_rows(logger: str) -> None:
    """Have an SQLAlchemy engine log no rows, which it does at DEBUG.

    :param logger: the name of the engine's logger
    """
    logging.getLogger(logger).addFilter(_is_above_debug)


def _has_no_message(record: logging.LogRecord) -> bool:
    return not (isinstance(record.args, dict) and 'message' in record.args)


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
