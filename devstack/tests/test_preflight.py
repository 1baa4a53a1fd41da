"""Whether everything that keeps services from starting is found at once: cells of the table, variables, handlers, permissions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import bff.main
import bff.settings
import order.settings
import pytest
from chassis.config import Settings
from contracts.order.v1.catalog_pb2_grpc import CatalogServiceServicer
from devstack.failures import StartupError, not_named
from devstack.layout import Layout
from devstack.options import Options
from mesh import topology
from mesh.topology import SERVICES, Service
from order.handlers.catalog import CatalogHandlers
from pydantic import Field, SecretStr

from devstack import preflight


class Nothing:
    """Handles no method."""

    def __init__(self, *_: object) -> None: ...


def problems(path: Path) -> list[str]:
    return asyncio.run(preflight.problems(Layout(path), Options()))


def with_row(monkeypatch: pytest.MonkeyPatch, changed: Service) -> None:
    table = tuple(changed if row.name == changed.name else row for row in topology.TABLE)
    monkeypatch.setattr(topology, "TABLE", table)
    monkeypatch.setattr(preflight, "SERVICES", tuple(row for row in table if isinstance(row, Service)))


@pytest.fixture
def without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bff.main, "MetaHandlers", Nothing)
    monkeypatch.setattr(CatalogHandlers, "GetProduct", CatalogServiceServicer.GetProduct)


def test_nothing_is_wrong_with_what_starts(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


@pytest.mark.usefixtures("without_handlers")
def test_variables_permissions_and_handlers_of_several_services_are_named_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OrderSettings(order.settings.Settings):
        courier: Literal["bike", "van"]
        parcels: Annotated[int, Field(gt=3)]

    class BffSettings(bff.settings.Settings):
        upstream_token: Annotated[SecretStr, Field(min_length=20)]
        page: Path | None = Field(...)

    monkeypatch.setattr(order.settings, "Settings", OrderSettings)
    monkeypatch.setattr(bff.settings, "Settings", BffSettings)
    monkeypatch.setattr("chassis.http.application.PERMISSIONS", frozenset())
    found = problems(tmp_path)
    for problem in (
        "order: COURIER: Field required",
        "order: PARCELS: Field required",
        "order: order.v1.CatalogService.GetProduct has no handler",
        "bff: UPSTREAM_TOKEN: Field required",
        "bff: PAGE: Field required",
        "bff: getJwks has no handler",
        "bff: getMe needs profile:read, which no role grants",
    ):
        assert problem in found


def without_cell(service: Service) -> dict[str, Service]:
    """A service by the cell that it has lost."""
    lacking = {
        "database": replace(service, database=None),
        "valkey": replace(service, valkey=None),
        "secrets": replace(service, secrets=()),
        "tokens": replace(service, tokens=""),
    }
    return {cell: changed for cell, changed in lacking.items() if changed != service}


@pytest.mark.usefixtures("without_handlers")
@pytest.mark.parametrize(
    "changed",
    [pytest.param(row, id=f"{row.name}-{cell}") for one in SERVICES for cell, row in without_cell(one).items()],
)
def test_a_cell_that_is_missing_hides_no_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Service
) -> None:
    with_row(monkeypatch, changed)
    found = problems(tmp_path)
    assert any(line.startswith(f"{changed.name}: ") and line.endswith(": Field required") for line in found), found
    assert "bff: getJwks has no handler" in found
    assert "order: order.v1.CatalogService.GetProduct has no handler" in found
    assert not [line for line in found if "cannot be" in line]


@pytest.mark.usefixtures("without_handlers")
def test_a_cell_with_a_wrong_value_hides_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order_row = next(row for row in SERVICES if row.name == "order")
    with_row(monkeypatch, replace(order_row, tokens="reads", policies=("NO_SUCH_POLICY",)))
    found = problems(tmp_path)
    assert "order: JWKS_FILE: Field required" in found
    assert "order: order.v1.CatalogService.GetProduct has no handler" in found
    assert "bff: getJwks has no handler" in found


def test_what_cannot_be_imported_or_wired_is_named_and_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(settings: Settings) -> object:
        raise OSError("no such device")

    monkeypatch.setattr("order.main.build", build)
    monkeypatch.setattr(bff.main, "MetaHandlers", Nothing)
    stranger = replace(SERVICES[0], name="stranger")
    monkeypatch.setattr(topology, "TABLE", (*topology.TABLE, stranger))
    monkeypatch.setattr(preflight, "SERVICES", (replace(stranger, secrets=(), valkey=None), *SERVICES))
    found = problems(tmp_path)
    assert "stranger: cannot be imported: ModuleNotFoundError: No module named 'stranger'" in found
    assert "order: cannot be wired: OSError: no such device" in found
    assert "bff: getJwks has no handler" in found


def test_only_what_a_failure_does_not_name_is_added_to_it() -> None:
    failure = ExceptionGroup(
        "start",
        [
            StartupError("order-2", "startup failed:\n  COURIER: Field required", "look"),
            StartupError("services", "the table is wrong:\nbff: it serves no contract", "mend"),
        ],
    )
    found = [
        "bff: it serves no contract",
        "order: COURIER: Field required",
        "user: COURIER: Field required",
        "order: PARCELS: Field required",
    ]
    assert not_named(found, failure) == found[2:]
