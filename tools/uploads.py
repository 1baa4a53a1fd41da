"""Clients that send all of their request before they read, as the plainest do: the answer must have waited for them.

    .venv/bin/python tools/uploads.py --data-dir .backend --count 100

Bodies of 5 MB, by length and in chunks, in the clear and over TLS. It fails when an upload saw anything but its 413.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
from collections import Counter
from contextlib import closing
from itertools import cycle, islice, product
from pathlib import Path

from fuzz.senders import Target
from fuzz_edge import stack_of

SIZE = 5_000_000
# Seconds that a client waits for anything.
_PATIENCE = 20.0
_PART = 16384


def connected(target: Target, address: str, *, tls: bool) -> socket.socket:
    """A blocking socket to the edge."""
    port = target.tls_port if tls else target.port
    connection = socket.create_connection(("127.0.0.1", port), _PATIENCE, source_address=(address, 0))
    if not tls:
        return connection
    context = ssl.create_default_context(cafile=str(target.authority))
    return context.wrap_socket(connection, server_hostname="localhost")


def head(method: str, path: str, *fields: str, size: int, chunked: bool = False) -> bytes:
    """Of an HTTP/1.1 request whose body will be `size` bytes."""
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: api", *fields, framing, "", ""]).encode()


def send_body(connection: socket.socket, size: int, *, chunked: bool = False, last: bool = True) -> None:
    """So many bytes; with their end, if it is a `last` chunk."""
    for start in range(0, size, _PART):
        part = b"x" * min(_PART, size - start)
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
    connection.sendall(b"0\r\n\r\n" if chunked and last else b"")


def status(connection: socket.socket) -> int | str:
    """The answer's, or what came instead of one."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (received := connection.recv(65536)):
            return "closed without an answer"
        answer += received
    return int(answer.split(b" ", 2)[1])


def upload(
    target: Target, method: str, path: str, *fields: str, size: int, chunked: bool = False, tls: bool = False,
    address: str = "127.0.0.1",
) -> int | str:  # fmt: skip
    """Send a request with a body of `size` bytes, and only then read: the status, or what happened instead."""
    try:
        with closing(connected(target, address, tls=tls)) as connection:
            connection.sendall(head(method, path, *fields, size=size, chunked=chunked))
            send_body(connection, size, chunked=chunked)
            return status(connection)
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    chosen = parser.parse_args()
    _, target = stack_of(chosen.data_dir)
    kinds = cycle(product((False, True), repeat=2))
    seen = Counter(
        upload(target, "POST", "/v1/auth/login", size=SIZE, chunked=chunked, tls=tls)
        for chunked, tls in islice(kinds, chosen.count)
    )
    print(dict(seen))
    sys.exit(0 if set(seen) == {413} else 1)


if __name__ == "__main__":
    main()
