"""The API about itself: keys, contract, reference."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from chassis.http.answers import json_answer
from chassis.tokens import JwksFile
from starlette.responses import HTMLResponse, Response

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Production Backend: API reference</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div id="reference"></div>
<script>{script}</script>
<script>{start}</script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "/openapi.yaml", dom_id: "#reference", deepLinking: true, validatorUrl: null});'


class MetaHandlers:
    """getJwks, getOpenapi, getDocs."""

    def __init__(self, keys: JwksFile) -> None:
        self._keys = keys
        self._contract = (files("contracts.http") / "bff.v1.yaml").read_text()
        # Swagger UI from its wheel, inlined: one request, no other host, works offline.
        static = files("swagger_ui") / "static"
        script = (static / "swagger-ui-bundle.js").read_text().replace("</script", "<\\/script")
        self._page = _PAGE.format(style=(static / "swagger-ui.css").read_text(), script=script, start=_START)
        # The page's own two scripts and no other; Swagger UI sets styles and icons inline.
        hashes = " ".join(f"'sha256-{_digest(source)}'" for source in (script, _START))
        self._policy = (
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )

    async def get_jwks(self) -> Response:
        """GET /.well-known/jwks.json."""
        return json_answer(self._keys.published(), headers={"cache-control": "public, max-age=15"})

    async def get_openapi(self) -> Response:
        """GET /openapi.yaml."""
        return Response(self._contract, media_type="application/yaml")

    async def get_docs(self) -> Response:
        """GET /docs."""
        return HTMLResponse(self._page, headers={"content-security-policy": self._policy})


def _digest(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
