"""docs/extending.md is done as it stands, in a copy of the repository; and a service that has lost its row is nowhere."""

from __future__ import annotations

import re

import pytest
from copies import Copy
from devstack.layout import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
# What `make generate` writes.
GENERATED = re.compile(
    r"^(libs/contracts/src/contracts/|.*/repository/queries\.py|compose\.yaml|deploy/(observability|compose)/|deploy/docker/\w+\.lock|deploy/helm/backend/(files/|values\.)|docs/(configuration|architecture)\.md|pyproject\.toml)"
)
# A name that is nowhere else, in any of the ways in which it is written.
NAME = re.compile(r"stock.?alerts?", re.IGNORECASE)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def extended(copy: Copy) -> Copy:
    """The copy in which the first walk has been done: there is a service, and another without a database."""
    copy.start_over()
    copy.walk(section("A service"))
    copy.run("./backend new service word_count")
    copy.commit("services")
    return copy


def by_hand(copy: Copy) -> list[str]:
    """What the last commit has changed that nothing generates, tests not counted."""
    named = copy.run("git show --format= --name-only HEAD").split()
    return [path for path in named if not GENERATED.match(path) and "/tests/" not in f"/{path}"]


def test_a_new_service_is_its_own_folder_and_one_row(extended: Copy) -> None:
    others = [
        path for path in by_hand(extended) if not re.match(r"(services|api/proto)/(stock_alerts|word_count)/", path)
    ]
    assert others == ["libs/mesh/src/mesh/topology.py"]
    extended.run(".venv/bin/python tools/lint.py ruff import table buf handlers dependencies mappings patterns squawk")
    extended.run(".venv/bin/python -m mypy services/stock_alerts services/word_count")


# Everything that a start derives: processes and what they need, their configurations, databases, users and secrets.
STARTED = """
import tempfile
from pathlib import Path
from devstack import ports, postgres, proxies, secrets, services, valkey
from devstack.layout import Layout
from devstack.options import NAMES, Options
from devstack.supervisor import Supervisor
from mesh.topology import VALKEY_SERVERS, levels
layout, options = Layout(Path(tempfile.mkdtemp())), Options()
made = secrets.load_or_create(layout.secrets)
print(Supervisor(layout, options).steps(made), levels(), list(ports.of_stack(layout, options)))
print([path.read_text(encoding="utf-8") for path in proxies.render(layout, options).values()])
print([services.environment(name, layout, made, options) for name in NAMES])
print(postgres.databases(made), secrets.NAMES, [valkey.users_of(name) for name in VALKEY_SERVERS])
"""


def started(copy: Copy) -> str:
    return copy.run(f".venv/bin/python -c '{STARTED}'")


def test_without_its_row_a_service_is_nowhere(extended: Copy) -> None:
    assert NAME.search(started(extended))
    table = extended.path / "libs/mesh/src/mesh/topology.py"
    with_row = table.read_text(encoding="utf-8")
    table.write_text(
        re.sub(r'    Service\(\n        name="stock_alerts",.*?\n    \),\n', "", with_row, flags=re.DOTALL),
        encoding="utf-8",
    )
    assert table.read_text(encoding="utf-8") != with_row
    extended.run("make generate")
    said = extended.refused(".venv/bin/python tools/lint.py table")
    assert "services/stock_alerts has no row" in said
    assert "api/proto/stock_alerts/v1/stock_alerts.proto is of no service's contract" in said
    left = extended.run("git ls-files -co --exclude-standard").split()
    own = (
        "services/stock_alerts/",
        "api/proto/stock_alerts/",
        "docs/extending.md",
        "tools/lint_claims.py",
        "tests/",
        "libs/mesh/tests/",
        "tools/tests/",
        "devstack/tests/",
    )
    traces = [
        path for path in left
        if not path.startswith(own) and (extended.path / path).is_file()
        and NAME.search(path + (extended.path / path).read_text(encoding="utf-8", errors="replace"))
    ]  # fmt: skip
    assert traces == []
    # Nor is it installed, started, or part of what is rendered.
    assert "stock_alerts" not in extended.run(".venv/bin/uv pip list 2>/dev/null")
    assert not NAME.search(started(extended))
    extended.run("git checkout --quiet . && git clean --quiet -fd && make bootstrap")


def test_a_column_and_an_operation_reach_the_edge(extended: Copy) -> None:
    extended.walk(section("A column"))
    extended.commit("column")
    assert len(by_hand(extended)) == 6, by_hand(extended)
    # The service without a database is shown by the same run.
    said = extended.walk(section("An operation"), PYTEST_ADDOPTS="services/word_count")
    extended.commit("operation")
    assert len(by_hand(extended)) == 4, by_hand(extended)
    extended.run(".venv/bin/python -m mypy services/stock_alerts services/bff tests/e2e/test_stock_alerts.py")
    assert re.search(r"\b8 passed", said), said
