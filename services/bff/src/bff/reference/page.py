"""The page at /docs: Swagger UI, the events, and our additions in one file, so that it needs one request and no other host."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files

from contracts.permissions import ROLE_PERMISSIONS

from bff.reference import events

_HERE = files("bff.reference")


def page(asyncapi: bytes) -> tuple[bytes, str]:
    """The HTML, and the Content-Security-Policy that lets its own scripts and styles run and nothing else.

    Args:
        asyncapi: the document of the events.
    """
    vendored = _HERE / "vendor"
    parts = {
        "swagger-ui.css": (vendored / "swagger-ui.css").read_text(encoding="utf-8"),
        "reference.css": (_HERE / "reference.css").read_text(encoding="utf-8"),
        "events": events.table(asyncapi),
        "facts": json.dumps({"roles": _roles_by_permission()}),
        "swagger-ui-bundle.js": _inline((vendored / "swagger-ui-bundle.js").read_text(encoding="utf-8")),
        "reference.js": _inline((_HERE / "reference.js").read_text(encoding="utf-8")),
    }
    html = (_HERE / "page.html").read_text(encoding="utf-8")
    for name, content in parts.items():
        html = html.replace(f"<!-- {name} -->", content)
    scripts = " ".join(_hash(parts[name]) for name in parts if name.endswith(".js"))
    styles = " ".join(_hash(parts[name]) for name in parts if name.endswith(".css"))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _roles_by_permission() -> dict[str, list[str]]:
    names = sorted(frozenset().union(*ROLE_PERMISSIONS.values()))
    return {name: [role for role, granted in ROLE_PERMISSIONS.items() if name in granted] for name in names}


def _inline(script: str) -> str:
    # A script element ends at its end tag, wherever that stands (HTML, 4.12.1.3).
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
