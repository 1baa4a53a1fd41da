"""Documents that are the same for everybody until the next release: an entity tag each, compressed once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Mapping

from msgspec import UnsetType
from starlette.responses import Response


class Document:
    """A page or file that we serve.

    A client keeps its copy and asks whether it is current (RFC 9111, 5.2.2.4: no-cache). The two encodings are two
    representations, so each has its own entity tag (RFC 9110, 8.8.3.3).
    """

    def __init__(self, content: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._plain = content
        self._compressed: bytes | None = None
        self._media_type = media_type
        self._digest = hashlib.sha256(content).hexdigest()[:32]
        self._headers = {**(headers or {}), "cache-control": "public, no-cache", "vary": "accept-encoding"}

    async def answer(self, if_none_match: str | UnsetType, accept_encoding: str) -> Response:
        """200, or 304 when the client's copy is current."""
        gzipped = _accepts_gzip(accept_encoding)
        tag = f'"{self._digest}-gzip"' if gzipped else f'"{self._digest}"'
        headers = {**self._headers, "etag": tag}
        # Weak comparison, of every tag in the list (RFC 9110, 13.1.2).
        tags = "" if isinstance(if_none_match, UnsetType) else if_none_match
        known = (entry.strip().removeprefix("W/") for entry in tags.split(","))
        if any(entry in ("*", tag) for entry in known):
            return Response(status_code=304, headers=headers)
        if not gzipped:
            return Response(self._plain, headers=headers, media_type=self._media_type)
        if self._compressed is None:
            # Aside, for two megabytes take a while; twice at once would do no harm.
            self._compressed = await asyncio.to_thread(gzip.compress, self._plain, mtime=0)
        return Response(self._compressed, headers={**headers, "content-encoding": "gzip"}, media_type=self._media_type)


def _accepts_gzip(accept_encoding: str) -> bool:
    """Whether a client that sent this takes gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, bool] = {}
    for entry in accept_encoding.lower().split(","):
        coding, _, weight = (part.strip() for part in entry.partition(";"))
        weights[coding] = weight.replace(" ", "").rstrip("0") not in ("q=", "q=0.")
    return weights.get("gzip", weights.get("*", False))
