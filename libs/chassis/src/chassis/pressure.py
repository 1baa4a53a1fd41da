"""How full an Envoy's connections are, told to its overload manager through a file.

Envoy counts its connections against their bound, but lets no overload action depend on that count: its
`injected_resource` monitor reads a pressure (0 to 1) from a file instead, again whenever the file has been replaced.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from chassis.envoy_bootstrap import Bootstrap, OverloadManager

_MONITOR = "envoy.resource_monitors.injected_resource"
_BOUND = "envoy.resource_monitors.global_downstream_max_connections"
_OPEN = "http.ingress.downstream_cx_active"


class _Stat(TypedDict, total=False):
    # Only of a counter or a gauge; a histogram has none.
    value: int


class _Stats(TypedDict):
    stats: list[_Stat]


class ConnectionPressure:
    """Writes the file of one Envoy.

    Args:
        file: what its monitor reads.
        bound: connections it may have.
        ask: asks its admin interface for a path.
    """

    def __init__(self, file: Path, bound: int, ask: Callable[[str], bytes]) -> None:
        self._file = file
        self._bound = bound
        self._ask = ask
        self._written = ""
        self._write(0.0)

    def tell(self) -> None:
        """Look, and write what has changed; nothing while Envoy does not answer, or there is no room for the file."""
        try:
            stats: _Stats = json.loads(self._ask(f"/stats?format=json&filter=^{_OPEN}$"))
        except (OSError, http.client.HTTPException, ValueError):
            return
        pressure = min(1.0, sum(stat.get("value", 0) for stat in stats["stats"]) / self._bound)
        # A full disk is no reason to end the Envoy that this process looks after; the next look tries again.
        with contextlib.suppress(OSError):
            self._write(pressure)

    def _write(self, pressure: float) -> None:
        text = f"{pressure:.2f}"
        if text != self._written:
            new = self._file.with_suffix(".new")
            new.write_text(text, encoding="utf-8")
            new.replace(self._file)
            self._written = text


def of_configuration(config: Bootstrap, ask: Callable[[str], bytes]) -> ConnectionPressure | None:
    """For an Envoy that is configured to read a pressure; its working directory is this process's."""
    manager: OverloadManager = config.get("overload_manager", OverloadManager(resource_monitors=[]))
    monitors = {monitor["name"]: monitor["typed_config"] for monitor in manager["resource_monitors"]}
    if _MONITOR not in monitors:
        return None
    bound = monitors[_BOUND]["max_active_downstream_connections"]
    return ConnectionPressure(Path(monitors[_MONITOR]["filename"]), bound, ask)
