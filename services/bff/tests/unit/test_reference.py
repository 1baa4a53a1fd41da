"""What the page at /docs is made of."""

from __future__ import annotations

import hashlib
import json
import re
from html import escape
from importlib.resources import files

from bff.reference.page import page

ASYNCAPI = (files("contracts") / "asyncapi.json").read_bytes()
VENDOR = files("bff.reference") / "vendor"


def test_what_is_vendored_is_unchanged_and_says_its_version_and_licence() -> None:
    for line in (VENDOR / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split()
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
    version = re.search(r"version \| (\d+)\.(\d+)\.\d+ ", (VENDOR / "README.md").read_text(encoding="utf-8"))
    assert version is not None
    assert (int(version[1]), int(version[2])) >= (5, 35)
    assert "Apache License" in (VENDOR / "LICENSE").read_text(encoding="utf-8")


def test_the_page_is_whole_and_its_policy_allows_nothing_but_its_own_parts() -> None:
    html, policy = page(ASYNCAPI)
    text = html.decode()
    assert "<!-- " not in text.split("<script>")[0]
    assert text.count("</script>") == 3
    assert "unsafe" not in policy
    for directive in ("default-src 'none'", "connect-src 'self'", "form-action 'none'", "frame-ancestors 'none'"):
        assert directive in policy
    assert len(re.findall("'sha256-", policy)) == 4


def test_every_event_is_shown_with_its_message_and_who_tells_it() -> None:
    events = json.loads(ASYNCAPI)
    html = page(ASYNCAPI)[0].decode()
    for name, message in events["components"]["messages"].items():
        shown = html.partition(f"<code>{name}</code>")[2].partition("</tr>")[0]
        assert escape(message["payload"]["schema"]) in shown, name
        assert f"<td>{escape(message['summary'])}</td>" in shown, name
        assert f"<td>{name.partition('.')[0]}</td>" in shown, name
