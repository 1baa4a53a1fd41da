"""Generated requests, valid and not, against the running platform: what comes back is what the contract says."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import schemathesis
from contract_runtime.operation import Operation
from contracts.bff.v1.operations import OPERATIONS
from contracts.permissions import ROLE_PERMISSIONS
from devstack.layout import ROOT
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import Platform

schema = schemathesis.openapi.from_path(str(ROOT / "api/openapi/bff.v1.yaml"))


@pytest.fixture(scope="module")
def tokens(platform: Platform) -> dict[str, str]:
    found = {}
    with httpx.Client(base_url=platform.url, timeout=30) as http:
        for role, account in platform.status["demo"].items():
            login = {"email": account["email"], "password": account["password"]}
            found[role] = http.post("/v1/auth/login", json=login).json()["access_token"]
    return found


# Not by schemathesis's own `parametrize`, whose tests all have one node id.
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_answer_is_in_the_contract(operation: Operation, platform: Platform, tokens: dict[str, str]) -> None:
    described = schema[operation.path][operation.method]
    headers = {}
    if operation.permission is not None:
        role = next(role for role, granted in ROLE_PERMISSIONS.items() if operation.permission in granted)
        headers["Authorization"] = f"Bearer {tokens[role]}"
    # The sandbox's own tokens ask for a provider that fails; nothing else a client sends may.
    provider = {502, 504} if operation.path.endswith("/payment") else set()

    @settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=strategies.one_of([described.as_strategy(mode) for mode in GenerationMode]))
    def answered(case: Any) -> None:
        response = case.call(base_url=platform.url, headers=headers)
        # More header fields than the edge takes are no request for an operation yet (tests/answers.py).
        if response.status_code == 431:
            return
        assert response.status_code < 500 or response.status_code in provider, response.text
        case.validate_response(
            response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
        )
        if response.status_code >= 400:
            assert json.loads(response.content)["status"] == response.status_code

    answered()
