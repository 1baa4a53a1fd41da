"""The events as a table of HTML: what has happened, to what, who tells it, and who acts upon it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape


def table(asyncapi: bytes) -> str:
    """The rows of all events of an AsyncAPI document as we make them (tools/generate_asyncapi.py)."""
    document = json.loads(asyncapi)
    messages = document["components"]["messages"]
    rows = []
    for name, channel in document["channels"].items():
        message = messages[name]
        sent, received = (", ".join(_services(document, name, action)) for action in ("send", "receive"))
        summary, schema = escape(message["summary"]), escape(message["payload"]["schema"])
        rows.append(
            f"<tr><th scope=row><details><summary><code>{escape(name)}</code></summary><pre>{schema}</pre></details></th>"
            f"<td>{summary}</td><td><code>{escape(channel['x-subject'])}</code></td><td>{sent}</td><td>{received}</td></tr>"
        )
    return "\n".join(rows)


def _services(document: dict[str, dict[str, dict[str, object]]], name: str, action: str) -> Iterator[str]:
    for operation in document["operations"].values():
        if operation["action"] == action and operation["channel"] == {"$ref": f"#/channels/{name}"}:
            yield escape(str(operation["x-service"]))
