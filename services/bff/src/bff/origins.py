"""Whether a request that a browser authenticates with a cookie was meant by its user."""

from __future__ import annotations

import re
from collections.abc import Collection

from chassis.errors import ServiceError
from chassis.http.request import Request

# A name, an IPv4 address or an IPv6 address in brackets, without user information before it and without a path behind it.
_HOST_AND_PORT = re.compile(r"([0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Origins:
    """The pages that may use cookies.

    Browsers say with every POST from which page it comes (Fetch, section 3.2; Fetch Metadata). Other clients say nothing, but they
    do not send cookies unless they are meant to.

    Args:
        allowed: origins besides our own, like `https://app.example.com`.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, request: Request) -> None:
        """Let our own pages and allowed ones pass.

        Raises:
            ServiceError: FOREIGN_ORIGIN for a page of another site, or of nobody (`null`).
        """
        origins = request.lines(b"origin")
        site = request.header(b"sec-fetch-site")
        if origins and all(origin in self._allowed for origin in origins):
            return
        if site not in (None, "same-origin", "none") or not all(_is_own(origin, request) for origin in origins):
            raise ServiceError("FOREIGN_ORIGIN")


def _is_own(origin: str, request: Request) -> bool:
    # Ports are ignored: the edge removes the port from the authority, and cookies ignore it, too (RFC 6265, section 8.5). The
    # edge replaces whatever a client sends under this name.
    own = _scheme_and_host(request.header(b"x-client-origin") or request.origin)
    return own is not None and _scheme_and_host(origin) == own


def _scheme_and_host(origin: str) -> tuple[str, str] | None:
    """Of an origin as it is written in headers: a scheme, a host, perhaps a port, and nothing else (RFC 6454, 6.2)."""
    scheme, separator, authority = origin.partition("://")
    found = _HOST_AND_PORT.fullmatch(authority)
    return (scheme.lower(), found[1].lower()) if separator and found else None
