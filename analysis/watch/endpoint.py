"""A page of metrics for Prometheus to fetch, on this machine only."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eplb_gap.analysis.watch.prometheus import CONTENT_TYPE
from eplb_gap.problem.errors import InputError

ADDRESS, PAGE = "127.0.0.1", "/metrics"
TIMEOUT = 10.0
"""Seconds that a client may take to ask or to read on; each holds a thread."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, as those of Prometheus do when they have waited for long enough."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def endpoint(port: int, text: Callable[[], str]) -> Iterator[str]:
    """Serve what ``text`` returns at ``/metrics`` while the block runs; yield the address.

    Parameters
    ----------
    port : int
        0 for any that is free.
    text : callable

    Raises
    ------
    InputError
        If the port is none, or taken.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"port is {port}; 0 to 65535 is needed")

    class Page(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PAGE:
                self.send_error(404, f"the metrics are at {PAGE}")
                return
            content = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the terminal shows the windows."""

    try:
        server = _Server((ADDRESS, port), Page)
    except OSError as error:
        raise InputError(f"port {port} cannot be served ({error.strerror})") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_address[1]}{PAGE}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
