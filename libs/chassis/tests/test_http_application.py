"""Code that differs from its contract does not start."""

from __future__ import annotations

from typing import Any

import pytest
from chassis.grpc.policy import ContractMismatchError
from chassis.http.application import HttpApplication
from chassis.http.request import Request
from contract_runtime.operation import Operation, RateLimit


def operation(**changes: Any) -> Operation:
    known: dict[str, Any] = {
        "id": "getThing", "handler": "get_thing", "method": "GET", "path": "/thing", "permission": "orders:read",
        "anonymous": False, "success": 200, "media_type": "application/json",
        "timeout": 2.0, "rate_limit": RateLimit(1, 1, False), "operation_class": "read",
    }  # fmt: skip
    return Operation(**{**known, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"handler": "other"}, "getThing has no handler"),
        ({"handler": "other"}, "get_thing is no operation of the contract"),
        ({"permission": None}, "getThing names no permission"),
        ({"permission": "things:dream"}, "getThing needs things:dream, which no role grants"),
    ],
)
def test_code_that_differs_from_the_contract_does_not_start(changes: dict[str, Any], problem: str) -> None:
    class Things:
        async def get_thing(self) -> Any: ...

    async def nobody(_request: Request) -> Any: ...

    HttpApplication([operation()], [Things()], nobody, 1)
    with pytest.raises(ContractMismatchError, match=problem):
        HttpApplication([operation(**changes)], [Things()], nobody, 1)


def test_two_handlers_of_one_operation_do_not_start() -> None:
    class Things:
        async def get_thing(self) -> Any: ...

    async def nobody(_request: Request) -> Any: ...

    with pytest.raises(ContractMismatchError, match="get_thing has two handlers"):
        HttpApplication([operation()], [Things(), Things()], nobody, 1)
