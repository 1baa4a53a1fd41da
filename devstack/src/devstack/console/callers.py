"""Whom the console answers: programs of this machine, and its own page in this machine's browser.

A page of somebody else's that is open in the browser may send requests here, under a name of its own that it has made
point to 127.0.0.1 (DNS rebinding), or by ours. The first has another `Host`; of the second, browsers say whence it comes
(Fetch Metadata, `Sec-Fetch-Site`) and, where it may change something, `Origin` (Fetch, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping

_HOSTS = ("127.0.0.1", "localhost")
# Where spans are sent to: no page can send their media type without being asked about it first (CORS).
SPANS = "/v1/traces"
_PROTOBUF = "application/x-protobuf"


def refusal(method: str, path: str, headers: Mapping[str, str]) -> int | None:
    """With which status a request is refused; None when it is answered.

    Args:
        method: of the request.
        path: of the request, without its query.
        headers: by their names in small letters.
    """
    host = headers.get("host", "")
    if host.partition(":")[0] not in _HOSTS or headers.get("origin", f"http://{host}") != f"http://{host}":
        return 403
    # A link on another page may lead to ours; what is behind it is for our page alone.
    follows_link = path == "/" and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not follows_link:
        return 403
    if path == SPANS:
        if method != "POST":
            return 405
        return None if headers.get("content-type") == _PROTOBUF else 415
    return None if method in ("GET", "HEAD") else 405
