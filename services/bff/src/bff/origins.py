"""Whether a request that a browser authenticates with a cookie was meant by its user."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from chassis.errors import ServiceError
from starlette.requests import Request


class Origins:
    """The pages that may use cookies.

    Browsers say with every POST from which page it comes (Fetch, section 3.2; Fetch Metadata); what is no browser says
    nothing, and carries no cookie without meaning to.

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
        origins = request.headers.getlist("origin")
        site = request.headers.get("sec-fetch-site")
        if origins and all(origin in self._allowed for origin in origins):
            return
        if site not in (None, "same-origin", "none") or not all(_is_own(origin, request) for origin in origins):
            raise ServiceError("FOREIGN_ORIGIN")


def _is_own(origin: str, request: Request) -> bool:
    # Without the port, which the edge takes off the authority: cookies know none either (RFC 6265, section 8.5). The
    # edge replaces whatever a client sends under this name.
    try:
        parts, own = urlsplit(origin), urlsplit(request.headers.get("x-client-origin") or str(request.url))
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return host is not None and (parts.scheme, host) == (own.scheme, own.hostname)
