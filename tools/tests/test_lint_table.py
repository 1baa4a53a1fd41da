"""What the repository lacks of what a row promises, and has without a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import protos
from lint_table import ROOT, problems
from mesh.topology import SERVICES, TABLE, Database, Row, Service

STOCK = Service(
    "stock",
    port=8131,
    ops_port=8142,
    contracts=("proto/stock/v1/stock.proto",),
    database=Database("stockdb", role="stock_service"),
)


def test_every_row_has_what_it_promises() -> None:
    assert problems() == []


def test_what_a_new_row_lacks_is_said_all_at_once() -> None:
    assert problems(ROOT, (*TABLE, STOCK)) == [
        "stock: there is no services/stock/pyproject.toml",
        "stock: there is no services/stock/src/stock/__init__.py",
        "stock: there is no services/stock/src/stock/main.py",
        "stock: there is no services/stock/src/stock/settings.py",
        "stock: there is no services/stock/db/migrations",
        "stock: there is no services/stock/db/queries",
        "stock: there is no services/stock/db/sqlc.yaml",
        "stock: there is no api/proto/stock/v1/stock.proto",
    ]


def test_what_a_removed_row_leaves_is_named() -> None:
    table: list[Row] = []
    for row in TABLE:
        if isinstance(row, Service) and row.name != "order":
            upstreams = tuple(name for name in row.upstreams if name != "order")
            consumes = tuple(event for event in row.consumes if not event.startswith("order."))
            table.append(replace(row, upstreams=upstreams, consumes=consumes))
        elif row.name != "order":
            table.append(row)
    assert problems(ROOT, table) == [
        "services/order has no row: make one, or remove the folder",
        "api/proto/common/v1/money.proto is of no service's contract: name it in a row, or remove it",
        "api/proto/order/v1/audit.proto is of no service's contract: name it in a row, or remove it",
        "api/proto/order/v1/catalog.proto is of no service's contract: name it in a row, or remove it",
        "api/proto/order/v1/events.proto is of no service's contract: name it in a row, or remove it",
        "api/proto/order/v1/order.proto is of no service's contract: name it in a row, or remove it",
        "api/proto/order/v1/stored.proto is of no service's contract: name it in a row, or remove it",
    ]


def test_what_a_service_says_of_itself_is_its_row(tmp_path: Path) -> None:
    package = tmp_path / "services/stock/src/stock"
    package.mkdir(parents=True)
    for name in ("__init__", "settings"):
        (package / f"{name}.py").touch()
    (package / "main.py").write_text("app = 1\nsomeops = 2\n", encoding="utf-8")
    (tmp_path / "services/stock/pyproject.toml").write_text('[project]\nname = "backend-stocks"\n', encoding="utf-8")
    schema = tmp_path / "services/stock/db"
    for name in ("migrations", "queries"):
        (schema / name).mkdir(parents=True)
    (schema / "sqlc.yaml").write_text("sql: [{codegen: [{out: ../src/stocks/repository}]}]\n", encoding="utf-8")
    contract = tmp_path / "api/proto/stock/v1/stock.proto"
    contract.parent.mkdir(parents=True)
    contract.touch()
    found = problems(tmp_path, (STOCK, TABLE[-1]))
    assert [problem for problem in found if problem.startswith("stock: ")] == [
        "stock: the distribution in services/stock is backend-stocks, and not backend-stock",
        "stock: sqlc.yaml writes to ../src/stocks/repository, where no repository of it is",
        "stock: main.py has no `ops`, the probes that its Envoy loads",
    ]


def test_a_services_protobuf_files_are_its_contracts_and_what_they_import() -> None:
    of_order = protos.of([service for service in SERVICES if service.name == "order"], ROOT)
    assert {path for path in of_order if path.startswith("order/")} == {
        "order/v1/audit.proto",
        "order/v1/catalog.proto",
        "order/v1/events.proto",
        "order/v1/order.proto",
        "order/v1/stored.proto",
    }
    assert "common/v1/options.proto" in of_order
    assert not any(path.startswith("user/") for path in of_order)
