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

"""Serves the metrics of a service at ``/metrics``, for Prometheus."""

import contextlib
from http import HTTPStatus
from http import server
import socket
import socketserver
import threading
from urllib import parse

from oslo_log import log as logging
import prometheus_client

from guest_agent_ext import metrics

LOG = logging.getLogger(__name__)

PATH = '/metrics'
#: Maximum number of requests at once. Connections beyond it are closed.
MAX_REQUESTS = 4
#: Seconds that one request may take, from its connection to its last byte.
REQUEST_TIMEOUT = 5.0
#: Seconds between two attempts to bind the address, which a service that is
#: about to stop may still have.
BIND_GAP = 10.0

Address = tuple[str, int]
_Request = socket.socket | tuple[bytes, socket.socket]


def start(service: str, address: Address | None) -> None:
    """Serve the metrics of a service until the process ends.

    :param service: name of the service in the table of metrics
    :param address: host and port to listen at; None to serve no metrics
    """
    if address is None:
        return
    shown = metrics.registry(service)
    # Memory, processor, file descriptors.
    prometheus_client.ProcessCollector(registry=shown)
    threading.Thread(
        name='metrics', target=_serve, args=(address, shown), daemon=True
    ).start()


def _serve(
    address: Address, shown: prometheus_client.CollectorRegistry
) -> None:
    gap = threading.Event()
    while True:
        try:
            listening = Server(address, shown)
        except OSError as error:
            LOG.error(
                'Cannot serve metrics at [guest_agent] metrics_bind '
                '%(address)s: %(error)s; will try again in %(gap)s '
                'seconds',
                {
                    'address': '%s:%s' % address,
                    'error': error,
                    'gap': BIND_GAP,
                },
            )
            gap.wait(BIND_GAP)
        else:
            LOG.info('Serving metrics at %s:%s', *address)
            return listening.serve_forever()


class _Handler(server.BaseHTTPRequestHandler):
    """Answers one request per connection."""

    timeout = REQUEST_TIMEOUT
    server: 'Server'

    def do_GET(self) -> None:
        if parse.urlsplit(self.path).path != PATH:
            self.send_error(
                HTTPStatus.NOT_FOUND, explain=f'Metrics are at {PATH}'
            )
            return
        body = metrics.text(self.server.shown)
        self.send_response(HTTPStatus.OK)
        self.send_header('Content-Type', metrics.CONTENT_TYPE)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Return the Server header, without a version."""
        return 'guest-agent'

    def log_request(self, code: object = '-', size: object = '-') -> None:
        """Log nothing, because scrapes are frequent."""

    def log_error(self, *args: object) -> None:
        """Log nothing, because the error is the client's."""


class Server(socketserver.ThreadingTCPServer):
    """Answers a limited number of requests at once, each for a limited time.

    :param address: host and port to listen at
    :param shown: registry of the metrics to serve
    :raises OSError: the address cannot be bound
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self, address: Address, shown: prometheus_client.CollectorRegistry
    ) -> None:
        self.shown = shown
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        if ':' in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(
        self, request: _Request, client_address: object
    ) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread was started that would release the slot.
            self._slots.release()
            raise

    def process_request_thread(
        self, request: _Request, client_address: object
    ) -> None:
        # The handler's timeout is for one read. It does not end a client that
        # sends a byte now and then.
        hangup = threading.Timer(REQUEST_TIMEOUT, _hang_up, (request,))
        hangup.daemon = True
        hangup.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            hangup.cancel()
            self._slots.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        LOG.debug('Failed to answer a request for metrics', exc_info=True)


def _hang_up(request: socket.socket) -> None:
    # The connection may have ended just now.
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)
