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

"""Troubles that are logged once, and lines that libraries must not log."""

import logging
import threading

from guest_agent_ext import exception

#: Logger of oslo.messaging's driver. It logs the whole of an answer that came
#: too late, and the answer to a claim has the command in it.
_ANSWERS = 'oslo_messaging._drivers.amqpdriver'
#: Logger by which oslo.log logs unhandled exceptions in Nova's processes.
_UNHANDLED = 'nova'


class Trouble:
    """Logs the begin, each change and the end of a trouble.

    :param log: logger to write to
    :param level: level of every line
    """

    def __init__(
        self,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        level: int,
    ) -> None:
        self._log = log
        self._level = level
        self._lock = threading.Lock()
        self._kind: str | None = None

    def note(self, kind: str, line: str, *arguments: object) -> None:
        """Log a line, unless the last line was of the same kind.

        :param kind: name of the kind of trouble
        """
        with self._lock:
            if kind == self._kind:
                return
            self._kind = kind
        self._log.log(self._level, line, *arguments)

    def end(self, line: str, *arguments: object) -> None:
        """Log a line, if a trouble was noted."""
        with self._lock:
            if self._kind is None:
                return
            self._kind = None
        self._log.log(self._level, line, *arguments)


def hide_answers() -> None:
    """Keep answers that came too late out of the log."""
    logging.getLogger(_ANSWERS).addFilter(_has_no_message)


def quiet_broken_connections() -> None:
    """Log broken connections as one line in Nova's log.

    Where a client has gone, uwsgi raises an error that no code can handle, and
    it passes on what breaks an answer. oslo.log takes an unhandled exception
    for the end of the process, and logs CRITICAL with a traceback.
    """
    logging.getLogger(_UNHANDLED).addFilter(_is_worth_telling)


def hide_rows(logger: str) -> None:
    """Keep the rows that SQLAlchemy logs at DEBUG out of the log.

    :param logger: name of the engine's logger
    """
    logging.getLogger(logger).addFilter(_is_above_debug)


def _has_no_message(record: logging.LogRecord) -> bool:
    return not (isinstance(record.args, dict) and 'message' in record.args)


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _is_worth_telling(record: logging.LogRecord) -> bool:
    match record.exc_info:
        case (_, exception.AnswerBroken(), _):
            return False
        # Without a traceback: raised by uwsgi, which could not write.
        case (_, OSError(args=['write error']), None):
            record.levelno, record.levelname = logging.INFO, 'INFO'
            record.msg, record.args = (
                'The client closed the connection '
                'before it had the whole answer',
                (),
            )
            record.exc_info = None
    return True
