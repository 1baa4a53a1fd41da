"""The documents of the repository, as pages: an alert's runbook can be read where the alert is seen, offline."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from pathlib import Path

from markdown_it import MarkdownIt

from devstack.console import pages
from devstack.console.server import Answer
from devstack.layout import ROOT

_DIRECTORY = ROOT / "docs"
_PATH = re.compile(r"/docs/((?:[a-z0-9-]+/)*[A-Za-z0-9-]+\.md)")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/console.css">
</head>
<body>
<header class="top"><a class="brand" href="/"><img src="/icon.svg" alt="" width="24" height="24"> Backend console</a></header>
<main class="document">
{body}
</main>
</body>
</html>
"""


def document(path: str) -> Answer | None:
    """The document at a path (`/docs/runbooks/errors.md`); None when there is none."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    file = _DIRECTORY / found[1]
    try:
        return _rendered(file, file.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _rendered(file: Path, _changed: int) -> Answer:
    text = file.read_text(encoding="utf-8")
    title = html.escape(text.partition("\n")[0].lstrip("# "))
    # Markup in a document is shown as text, not taken for markup.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    made = _PAGE.format(title=title, body=body)
    return Answer(200, made.encode(), "text/html; charset=utf-8", {"cache-control": "no-cache", **pages.SECURITY})
