"""Which path is whose: a dictionary for those that are written out, compiled templates for the others.

Starlette's router tries one route after the other, of all the application has, and takes seven times as long for the hot
read as this (ADR 0026, `tools/bench/hot_read_parts.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

_PARAMETER = re.compile(r"{(\w+)}")
_NOTHING: Mapping[str, str] = {}


class Routes(Generic[T]):
    """Finds what belongs to a path.

    A path that is written out goes before a template, and an earlier template before a later one.

    Args:
        targets: by path, whose segments may be parameters: "/v1/orders/{order_id}".
    """

    def __init__(self, targets: Mapping[str, T]) -> None:
        self._exact: dict[str, tuple[T, Mapping[str, str]]] = {}
        # By the number of segments.
        self._templates: dict[int, list[tuple[re.Pattern[str], T]]] = {}
        for path, target in targets.items():
            if _PARAMETER.search(path) is None:
                self._exact[path] = target, _NOTHING
            else:
                self._templates.setdefault(path.count("/"), []).append((_compiled(path), target))

    def find(self, path: str) -> tuple[T, Mapping[str, str]] | None:
        """What belongs to a path, and the path's parameters; None for a path that there is not."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact
        for template, target in self._templates.get(path.count("/"), ()):
            if (found := template.fullmatch(path)) is not None:
                return target, found.groupdict()
        return None


def parameters_of(path: str) -> tuple[str, ...]:
    """The names of a template's parameters."""
    return tuple(_PARAMETER.findall(path))


def _compiled(path: str) -> re.Pattern[str]:
    # Every other part is a parameter's name.
    parts = _PARAMETER.split(path)
    return re.compile("".join(f"(?P<{p}>[^/]+)" if n % 2 else re.escape(p) for n, p in enumerate(parts)))
