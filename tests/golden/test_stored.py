"""Whatever a release has ever stored, this one reads.

Each file of `stored/` has examples of one format, as bytes in hexadecimal or as text, and what they must be read as. A
change of a format adds an example to its file; none is changed or removed while such bytes may be kept anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chassis.cursors import CursorSigner
from contracts.order.v1.order_pb2 import Order
from contracts.user.v1.session_pb2 import SessionRecord
from contracts.user.v1.user_pb2 import User
from order.service import stored

STORED = Path(__file__).parent / "stored"
CURSORS = CursorSigner("a secret of the golden files")

READERS: dict[str, Callable[[Any], Any]] = {
    # Rows of idempotency_keys, and their copies in Valkey: of orders and payments, and of stock.
    "idempotency_outcome": stored.decode,
    "idempotency_product": stored.decode_product,
    # Copies in Valkey, and the sessions.
    "order_copy": Order.FromString,
    "user_copy": User.FromString,
    "session_record": SessionRecord.FromString,
    # Held by clients.
    "cursor": lambda text: CURSORS.decode("orders|paid", text, 2),
}

EXAMPLES = [
    pytest.param(path.stem, example, id=f"{path.stem}: {example['written_by']}")
    for path in sorted(STORED.glob("*.json"))
    for example in json.loads(path.read_text(encoding="utf-8"))
]


def test_each_format_has_a_reader_and_examples() -> None:
    assert {path.stem for path in STORED.glob("*.json")} == set(READERS)


@pytest.mark.parametrize(("kind", "example"), EXAMPLES)
def test_it_is_read(kind: str, example: dict[str, Any]) -> None:
    written = example["text"] if "text" in example else bytes.fromhex(example["bytes"])
    value = READERS[kind](written)
    assert {path: str(_part(value, path)) for path in example["reads_as"]} == example["reads_as"]


def _part(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return value
