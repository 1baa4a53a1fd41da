"""The AsyncAPI document that is generated is valid AsyncAPI 3.0, by the schema of its specification (tools/asyncapi)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "libs/contracts/src/contracts/asyncapi.json"
SCHEMA = ROOT / "tools/asyncapi/schema-3.0.0.json"
# A schema's message may repeat all of what it does not like.
_LONGEST_MESSAGE = 500


def problems(document: dict[str, object]) -> Iterator[str]:
    """Where the document is none, and every reference that leads nowhere, which a schema does not see."""
    validator = Draft7Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for error in validator.iter_errors(document):
        # Of what may be one of many, what is nearest to it says more than that it is none of them.
        found = best_match([error]) or error
        yield f"{found.json_path}: {found.message[:_LONGEST_MESSAGE]}"
    for reference in _references(document):
        place: object = document
        for key in reference.removeprefix("#/").split("/"):
            place = place.get(key) if isinstance(place, dict) else None
        if place is None:
            yield f"{reference} leads nowhere"


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    if found := list(problems(json.loads(DOCUMENT.read_text(encoding="utf-8")))):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
