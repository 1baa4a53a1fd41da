"""How a stack is run, where it differs from the defaults; chosen by `backend up`, kept in the stack's state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.policies import Policies
from mesh.topology import CACHE, STATE, TABLE, levels
from mesh.valkey import MEMORY_MIB

# As how many processes a row may run, of those that may run as several.
REPLICATED: Mapping[str, int] = {row.name: row.replicas for row in TABLE if row.replicas > 1}
# Every row, in the order in which processes are listed: whoever is called before whoever calls.
NAMES: tuple[str, ...] = tuple(name for level in levels() for name in level)


@dataclass(frozen=True, slots=True)
class Options(Policies):
    """The mesh's policies, and what a stack on one machine has to choose besides; see `backend up --help`."""

    replicas: Mapping[str, int] = field(default_factory=dict)
    certificate_seconds: float = 86400
    # Bounds of the two Valkey servers: the one of state, which is never evicted, and the one of cached copies.
    valkey_memory_mib: int = MEMORY_MIB[STATE]
    cache_memory_mib: int = MEMORY_MIB[CACHE]
    # A process that answers no liveness probe for this long is killed and started again.
    liveness_seconds: float = 30.0
    # Whether products, accounts and orders to try are loaded on the first start.
    demo: bool = True
    # The base URL of an OTLP/HTTP receiver, for one's own instead of the console's. And who sends spans: see TRACER in
    # docs/configuration.md.
    otlp_endpoint: str = ""
    tracer: str = "lean"

    def processes(self, service: str) -> tuple[str, ...]:
        """The names of a service's processes: order, order-2, order-3."""
        count = self.replicas.get(service, 1)
        return (service, *(f"{service}-{number}" for number in range(2, count + 1)))

    @property
    def every_process(self) -> tuple[str, ...]:
        """The names of all processes of all services."""
        return tuple(name for service in NAMES for name in self.processes(service))


def parse_replicas(texts: list[str]) -> dict[str, int]:
    """How many processes each service runs as, from texts like `order=2`.

    Raises:
        ValueError: an unknown service or an impossible number.
    """
    replicas = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdigit() or not 1 <= int(number) <= REPLICATED.get(name, 0):
            most = ", ".join(f"{service} (1 to {count})" for service, count in REPLICATED.items())
            raise ValueError(f"{text!r}: write SERVICE=N with one of {most}")
        replicas[name] = int(number)
    return replicas


def parse_endpoint(text: str) -> str:
    """The base URL of an OTLP/HTTP receiver.

    Raises:
        ValueError: it is none that the Envoys can send to.
    """
    if text and not re.fullmatch(r"http://[^/?#\s]+(/[^?#\s]*)?", text):
        raise ValueError(f"{text!r}: write http://HOST:PORT of an OTLP/HTTP receiver nearby, such as a collector")
    return text


def parse_tracer(text: str) -> str:
    """Who sends spans.

    Raises:
        ValueError: nobody of that name.
    """
    if text not in ("lean", "sdk"):
        raise ValueError(f"there is no tracer {text!r}; there are: lean, sdk")
    return text
