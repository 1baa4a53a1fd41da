"""The API about itself: keys, contract, reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from chassis.http.answers import json_answer
from chassis.http.application import Call
from chassis.http.documents import Document
from chassis.tokens import JwksFile
from contracts.bff.v1 import operations
from starlette.responses import PlainTextResponse, Response

from bff import shapes
from bff.authentication import Principal
from bff.reference.page import page

# How long whoever has read security.txt may rely on it.
_CONTACT_HOLDS = timedelta(days=30)


class MetaHandlers:
    """getJwks, getSecurityTxt, getOpenapi, getAsyncapi, getDocs."""

    def __init__(
        self,
        keys: JwksFile,
        security_contacts: Sequence[str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keys = keys
        self._security_contacts = security_contacts
        self._now = now
        self._contract = Document((files("contracts.bff.v1") / "openapi.yaml").read_bytes(), "application/yaml")
        events = (files("contracts") / "asyncapi.json").read_bytes()
        self._events = Document(events, "application/json")
        html, policy = page(events)
        self._page = Document(html, "text/html; charset=utf-8", {"content-security-policy": policy})

    async def get_jwks(self) -> Response:
        """GET /.well-known/jwks.json."""
        return json_answer(shapes.key_set(self._keys.published()), headers={"cache-control": "public, max-age=15"})

    async def get_security_txt(self) -> Response:
        """GET /.well-known/security.txt.

        What it says is what we are configured with at this moment, so its Expires follows from the clock: a date in a file
        would pass one day, and nobody would see it.
        """
        expires = (self._now() + _CONTACT_HOLDS).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = [*(f"Contact: {contact}" for contact in self._security_contacts), f"Expires: {expires}"]
        return PlainTextResponse("\n".join([*fields, ""]), headers={"cache-control": "public, max-age=3600"})

    async def get_openapi(self, call: Call[Principal], headers: operations.GetOpenapiHeaders) -> Response:
        """GET /openapi.yaml."""
        return await self._contract.answer(headers.if_none_match, _accept_encoding(call))

    async def get_asyncapi(self, call: Call[Principal], headers: operations.GetAsyncapiHeaders) -> Response:
        """GET /asyncapi.json."""
        return await self._events.answer(headers.if_none_match, _accept_encoding(call))

    async def get_docs(self, call: Call[Principal], headers: operations.GetDocsHeaders) -> Response:
        """GET /docs."""
        return await self._page.answer(headers.if_none_match, _accept_encoding(call))


def _accept_encoding(call: Call[Principal]) -> str:
    return call.request.header(b"accept-encoding") or ""
