"""The table of services beside what the repository holds: every row has what it promises, and nothing is there without a row.

Says all that is wrong at once. `mesh.checks` does the same at a start, for what a start needs.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import protos
import yaml
from mesh.topology import TABLE, Row, Service, faults

ROOT = Path(__file__).resolve().parent.parent


def problems(root: Path = ROOT, table: Sequence[Row] = TABLE) -> list[str]:
    """A line for each thing that is wrong."""
    services = [row for row in table if isinstance(row, Service)]
    found = [*faults(table), *(problem for service in services for problem in _of_service(root, service))]
    folders = {path.parent.name for path in root.glob("services/*/pyproject.toml")}
    found += [
        f"services/{name} has no row: make one, or remove the folder"
        for name in sorted(folders - {service.name for service in services})
    ]
    found += [
        f"api/proto/{path} is of no service's contract: name it in a row, or remove it"
        for path in sorted(protos.there(root) - protos.of(services, root))
    ]
    return found


def _of_service(root: Path, service: Service) -> Iterator[str]:
    folder = root / service.folder
    promised = ["pyproject.toml", *(f"src/{service.package}/{name}.py" for name in ("__init__", "main", "settings"))]
    if service.database is not None:
        schema = service.database.schema
        promised += [f"{schema}/migrations", f"{schema}/queries", f"{schema}/sqlc.yaml"]
    for path in promised:
        if not (folder / path).exists():
            yield f"{service.name}: there is no {service.folder}/{path}"
    for contract in service.contracts:
        if not (root / "api" / contract).exists():
            yield f"{service.name}: there is no api/{contract}"
    if (folder / "pyproject.toml").exists():
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        if (name := project["project"]["name"]) != service.distribution:
            yield f"{service.name}: the distribution in {service.folder} is {name}, and not {service.distribution}"
    if service.database is not None and (folder / service.database.schema / "sqlc.yaml").exists():
        text = (folder / service.database.schema / "sqlc.yaml").read_text(encoding="utf-8")
        for sql in yaml.safe_load(text)["sql"]:
            for codegen in sql["codegen"]:
                out = (folder / service.database.schema / codegen["out"]).resolve()
                if out != (folder / "src" / service.package / "repository").resolve():
                    yield f"{service.name}: sqlc.yaml writes to {codegen['out']}, where no repository of it is"
    main = folder / "src" / service.package / "main.py"
    if main.exists():
        text = main.read_text(encoding="utf-8")
        for name, what in (("app", "the application"), ("ops", "the probes")):
            if not re.search(rf"^{name}\b.*=", text, re.MULTILINE):
                yield f"{service.name}: main.py has no `{name}`, {what} that its Envoy loads"


def main() -> None:
    """Print every problem; exit 1 when there is one."""
    if found := problems():
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
