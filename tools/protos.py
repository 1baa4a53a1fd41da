"""The protobuf files of the repository, by the services whose contracts they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mesh.topology import Service

_IMPORT = re.compile(r'^import "([^"]+)";', re.MULTILINE)


def there(root: Path) -> set[str]:
    """Every file, by its path below api/proto."""
    source = root / "api/proto"
    return {path.relative_to(source).as_posix() for path in source.rglob("*.proto")}


def of(services: Iterable[Service], root: Path) -> set[str]:
    """The files of these services: those of their contracts, what lies beside them, and what any of these imports."""
    known = there(root)
    folders = {
        Path(contract).parent.relative_to("proto")
        for service in services
        for contract in service.contracts
        if contract.endswith(".proto")
    }
    waiting = {path for path in known if Path(path).parent in folders}
    found: set[str] = set()
    while waiting:
        path = waiting.pop()
        found.add(path)
        imported = _IMPORT.findall((root / "api/proto" / path).read_text(encoding="utf-8"))
        waiting |= {name for name in imported if name in known} - found
    return found
