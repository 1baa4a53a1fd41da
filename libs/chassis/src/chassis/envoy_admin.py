"""The admin interface of the Envoy that a process is in, or that it runs: a Unix socket of its own user's."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing

# The variable by which an application knows where it is.
ADMIN_SOCKET = "ADMIN_SOCKET"
_TIMEOUT_SECONDS = 2


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("admin", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """See http.client."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(address: str, path: str, method: str = "GET") -> bytes:
    """The body of an answer.

    Args:
        address: of the socket.
        path: of the admin interface, with its query.
        method: what changes something is asked for by POST.

    Raises:
        OSError, http.client.HTTPException: it does not answer within 2 s.
    """
    with closing(_Connection(address)) as connection:
        connection.request(method, path)
        return connection.getresponse().read()
