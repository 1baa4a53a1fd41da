"""The problem that every service answers with is the one that each HTTP contract promises."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import contracts
import pytest
from contract_runtime import problem
from msgspec.structs import fields

APIS = [name for _, name, _ in pkgutil.walk_packages(contracts.__path__, "contracts.") if name.endswith(".models")]


def test_there_is_an_api() -> None:
    assert APIS


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("ours", [problem.Problem, problem.FieldError])
def test_a_contract_promises_what_is_answered(api: str, ours: type[problem.Problem | problem.FieldError]) -> None:
    promised = getattr(import_module(api), ours.__name__)
    assert _members(promised) == _members(ours)


def _members(struct: type[problem.Problem | problem.FieldError]) -> dict[str, bool]:
    """The names, and which of them are always there."""
    return {field.name: field.required for field in fields(struct)}
