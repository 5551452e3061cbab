"""The HTTP server for scrapes: prometheus_client's, with bounds on what clients can hold.

prometheus_client starts a thread for each connection and waits for its request without a limit, so
a few hundred clients that send nothing hold as many threads for ever. Here a silent client is
dropped after some seconds, and when many are connected, a new one takes the place of the oldest. A
scrape is answered within milliseconds, so the oldest is one that dawdles.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from vrange._system_threads import without_signals

__all__ = ["start_http_server"]

_SILENCE_SECONDS = 10  # Prometheus gives a scrape up after 10 s, too
_CONNECTIONS_MOST = 32


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_SECONDS  # of each read and write

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Server(ThreadingWSGIServer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._connections: dict[socket.socket, None] = {}  # the oldest first
        self._lock = threading.Lock()
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, and drop the oldest if there are too many."""
        with self._lock:
            self._connections[request] = None
            if len(self._connections) > _CONNECTIONS_MOST:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with suppress(OSError):  # the client closed it
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error, but not of a client that is gone: it could fill the program's log."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def start_http_server(
    port: int, addr: str, registry: CollectorRegistry
) -> tuple[ThreadingWSGIServer, threading.Thread]:
    """Serve a registry from a thread, and return the server and the thread.

    Raises
    ------
    OSError
        If the port is taken or the address does not belong to this machine.

    """
    family, *_, address = socket.getaddrinfo(addr, port, type=socket.SOCK_STREAM)[0]

    class Server(_Server):
        address_family = family

    server = make_server(
        str(address[0]), port, make_wsgi_app(registry), Server, handler_class=_Handler
    )
    thread = threading.Thread(target=server.serve_forever, name="vrange-metrics", daemon=True)
    with without_signals():
        thread.start()
    return server, thread
