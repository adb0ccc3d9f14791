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

"""A WSGI application of OpenStack's over HTTP, on a loopback port.

Run as ``python -m tools.testbed.serve MODULE PORT [--embedded]``, where MODULE
is the entry point that a real web server would load. Embedded, the
extension's conductor and compute service are threads of the same process.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterable
import importlib
import json
import signal
import socketserver
import sys
import threading
from typing import Any
from wsgiref import simple_server

Application = Callable[..., Iterable[bytes]]


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """A thread per request."""

    daemon_threads = True
    request_queue_size = 128


class _Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Say nothing: the applications log their requests themselves."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('module')
    parser.add_argument('port', type=int)
    parser.add_argument('--embedded', action='store_true')
    arguments = parser.parse_args()
    sys.argv = sys.argv[:1]  # the application parses it too
    application = importlib.import_module(arguments.module).application
    server = simple_server.make_server(
        '127.0.0.1',
        arguments.port,
        _with_networking(application),
        _Server,
        _Handler,
    )
    services = _embedded_services() if arguments.embedded else []
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: stopping.set())
    for service in services:
        service.start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stopping.wait()
    for service in reversed(services):
        service.stop()
    server.shutdown()


def _embedded_services() -> list[Any]:
    # Not before Nova's entry point: that wants to be the first to import
    # what decides between native threads and eventlet.
    from tools.testbed import embedded

    return list(embedded.services())


def _with_networking(application: Application) -> Application:
    """Answer, for Neutron, that no server has any network."""

    def dispatch(
        environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        # Of which wsgiref knows nothing.
        environ['wsgi.multithread'] = True
        path = environ['PATH_INFO']
        if not path.startswith('/networking/'):
            return application(environ, start_response)
        resource = path.rpartition('/')[2].removesuffix('.json')
        body = json.dumps({resource.replace('-', '_'): []}).encode()
        start_response(
            '200 OK',
            [
                ('Content-Type', 'application/json'),
                ('Content-Length', str(len(body))),
            ],
        )
        return [body]

    return dispatch


if __name__ == '__main__':
    main()
