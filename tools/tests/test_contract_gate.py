"""What breaks a client of the public API, and which commits say so."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import contract_gate
import pytest
import yaml
from contract_gate import OPENAPI, ROOT, breaks

SPEC = yaml.safe_load((ROOT / OPENAPI).read_text(encoding="utf-8"))


@pytest.fixture
def spec() -> dict[str, Any]:
    return copy.deepcopy(SPEC)


def test_nothing_breaks_when_nothing_changes_or_something_is_new(spec: dict[str, Any]) -> None:
    assert breaks(SPEC, spec) == []
    spec["paths"]["/v1/new"] = {"get": {"operationId": "getNew", "responses": {"200": {"description": "New"}}}}
    schemas = spec["components"]["schemas"]
    schemas["Order"]["properties"]["note"] = {"type": "string"}
    schemas["Order"]["required"].append("note")
    schemas["CreateOrderRequest"]["properties"]["note"] = {"type": "string"}
    spec["paths"]["/v1/products"]["get"]["parameters"].append(
        {"name": "colour", "in": "query", "schema": {"type": "string"}}
    )
    assert breaks(SPEC, spec) == []


def test_what_is_gone_or_newly_demanded_breaks(spec: dict[str, Any]) -> None:
    paths, schemas = spec["paths"], spec["components"]["schemas"]
    del paths["/docs"]
    paths["/v1/products"]["get"]["parameters"].append({"name": "colour", "in": "query", "required": True})
    schemas["CreateOrderRequest"]["required"].append("note")
    schemas["Order"]["required"].remove("status")
    del paths["/v1/me"]["get"]["responses"]["200"]
    found = breaks(SPEC, spec)
    assert {
        "GET /docs is gone",
        "GET /v1/products: demands the parameter colour (query)",
        "POST /v1/orders: demands the member note",
        "POST /v1/orders: answers 201 without status",
        "GET /v1/orders/{order_id}: answers 200 without status",
        "GET /v1/me: answers 200 no more",
    } <= set(found)


@pytest.mark.parametrize(
    ("message", "marked"),
    [
        ("feat(api)!: what breaks", True),
        ("feat!: what breaks", True),
        ("feat: x\n\nBREAKING CHANGE: what", True),
        ("feat: what!: is said", False),
        ("fix(api): x\n\nNo BREAKING CHANGE: really", False),
    ],
)
def test_a_break_is_marked_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, *, marked: bool
) -> None:
    monkeypatch.setattr(contract_gate, "ROOT", tmp_path)

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@shop.example", *arguments], cwd=tmp_path, check=True
        )

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "feat!: before")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    assert contract_gate.is_marked("HEAD~1") == marked


def test_a_message_that_is_gone_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the real `buf breaking`, of a commit's files beside those that are there."""
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(tmp_path / "clone")], check=True)
    monkeypatch.setattr(contract_gate, "ROOT", tmp_path / "clone")
    assert contract_gate.differences("HEAD") == []
    proto = tmp_path / "clone/api/proto/common/v1/money.proto"
    proto.write_text(proto.read_text(encoding="utf-8").replace("string currency", "string coin"), encoding="utf-8")
    said = contract_gate.differences("HEAD")
    assert said
    assert all("money.proto" in line and "currency" in line for line in said), said
