"""What a contract that is not complete is told: the operation and what it lacks, all at once."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lint_openapi
import pytest
import yaml
from generate_http import ContractError, incomplete, parse
from lint_openapi import ROOT, invalid

SPEC = yaml.safe_load((ROOT / "api/openapi/bff.v1.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def spec() -> dict[str, Any]:
    """The contract, to be spoilt."""
    return copy.deepcopy(SPEC)


def test_a_contract_that_is_no_yaml_is_named_with_its_line_and_no_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api/openapi").mkdir(parents=True)
    (tmp_path / "api/openapi/bff.v1.yaml").write_text("paths:\n  : [\n", encoding="utf-8")
    monkeypatch.setattr(lint_openapi, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"not YAML: (.|\n)*bff.v1.yaml.*line 2"):
        lint_openapi.main()


def test_the_contract_is_complete() -> None:
    assert incomplete(SPEC) == []


def test_every_operation_is_named_with_what_it_lacks(spec: dict[str, Any]) -> None:
    del spec["paths"]["/v1/orders"]["get"]["x-class"]
    del spec["paths"]["/v1/me"]["get"]["operationId"], spec["paths"]["/v1/me"]["get"]["summary"]
    with pytest.raises(ContractError) as caught:
        parse(spec)
    assert sorted(str(caught.value).splitlines()) == [
        "an operation without operationId (GET /v1/me): operationId, summary missing",
        "listOrders (GET /v1/orders): x-class missing",
    ]


def test_a_reference_to_nothing_is_named_with_the_operations_that_come_to_it(spec: dict[str, Any]) -> None:
    spec["paths"]["/v1/me"]["patch"]["requestBody"] = {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Nowhere"}}}
    }
    # Through another component as well.
    spec["components"]["schemas"]["Product"]["properties"]["price"] = {"$ref": "#/components/schemas/Gone"}
    found = incomplete(spec)
    assert "updateMe (PATCH /v1/me): #/components/schemas/Nowhere is referred to, and not there" in found
    assert (
        "getProduct (GET /v1/products/{product_id}): #/components/schemas/Gone is referred to, and not there" in found
    )
    assert all(len(line) < 200 for line in found)


def test_what_is_no_openapi_is_said_in_a_line(spec: dict[str, Any]) -> None:
    spec["paths"]["/v1/me"]["get"]["responses"] = 7
    (said,) = invalid(spec)
    assert said.startswith("paths/")
    assert len(said) < 700
