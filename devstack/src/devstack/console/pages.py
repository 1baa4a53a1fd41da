"""The page itself: files that stand beside this module, served as they are.

Its policy lets nothing run, load or be asked but what comes from here; no text that a process, a log or a span says can
become markup, for the page may not make markup out of text at all (`require-trusted-types-for`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from devstack.console.server import Answer

_DIRECTORY = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def page(path: str) -> Answer | None:
    """The file at a path; None when there is none."""
    return _files().get("/index.html" if path == "/" else path)


@cache
def _files() -> Mapping[str, Answer]:
    headers = {"cache-control": "no-cache", **SECURITY}
    return {
        f"/{file.name}": Answer(200, file.read_bytes(), _TYPES[file.suffix], headers)
        for file in sorted(_DIRECTORY.iterdir())
        if file.suffix in _TYPES
    }
