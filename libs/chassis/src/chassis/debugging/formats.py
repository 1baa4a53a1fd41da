"""A profile as other programs read it: pprof's protobuf, collapsed stacks, a flame graph, a table."""

from __future__ import annotations

import gzip
from collections import Counter
from html import escape

from chassis.debugging.profiles import Profile
from chassis.debugging.stacks import Place
from chassis.wire_format import field, varint

_WIDTH, _ROW = 1200, 18
# Pixels; what is narrower is left out.
_NARROWEST = 0.5
_MOST_LINES = 50


def pprof(profile: Profile) -> bytes:
    """For `go tool pprof` and speedscope: profile.proto (github.com/google/pprof), gzipped."""
    strings: dict[str, int] = {"": 0}
    functions: dict[tuple[str, str], int] = {}
    locations: dict[Place, int] = {}

    def text(value: str) -> int:
        return strings.setdefault(value, len(strings))

    def kind(name: str, unit: str) -> bytes:
        return _number(1, text(name)) + _number(2, text(unit))

    parts = [field(1, kind(*one)) for one in profile.kinds]
    for (thread, stack), values in profile.stacks.items():
        # The innermost is the first one.
        ids = [locations.setdefault(place, len(locations) + 1) for place in reversed(stack)]
        label = field(3, _number(1, text("thread")) + _number(2, text(thread))) if thread else b""
        parts.append(field(2, _packed(1, ids) + _packed(2, values) + label))
    for place, number in locations.items():
        function = functions.setdefault((place.file, _name(place)), len(functions) + 1)
        line = field(4, _number(1, function) + _number(2, place.line))
        parts.append(field(4, _number(1, number) + line))
    for (file, name), number in functions.items():
        parts.append(field(5, _number(1, number) + _number(2, text(name)) + _number(4, text(file))))
    parts += [
        _number(9, int(profile.began * 1e9)),
        _number(10, int(profile.seconds * 1e9)),
        _number(14, text(profile.kinds[-1][0])),
    ]
    # The last part: the others have named what is in it.
    parts += [field(6, string.encode()) for string in strings]
    return gzip.compress(b"".join(parts), mtime=0)


def folded(profile: Profile) -> str:
    """For flamegraph.pl and speedscope: a stack and its value a line."""
    lines = (f"{';'.join(path)} {value}" for path, value in sorted(_paths(profile).items()) if value)
    return "".join(f"{line}\n" for line in lines)


def top(profile: Profile) -> dict[str, object]:
    """The lines with most of it: in themselves, and by what they call."""
    alone: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for path, value in _paths(profile).items():
        alone[path[-1]] += value
        for place in set(path):
            below[place] += value
    name, unit = profile.kinds[-1]
    return {
        "what": name,
        "unit": unit,
        "seconds": round(profile.seconds, 3),
        "total": alone.total(),
        "lines": [{"line": line, "self": count, "all": below[line]} for line, count in alone.most_common(_MOST_LINES)],
    }


def flame_graph(profile: Profile) -> str:
    """For a browser: callers above, what they call below, as wide as its share. The pointer over a box says all of it."""
    paths = [(path, value) for path, value in sorted(_paths(profile).items()) if value]
    total = sum(value for _, value in paths) or 1
    boxes: list[str] = []
    deepest = 0

    def draw(part: list[tuple[tuple[str, ...], int]], depth: int, left: float) -> None:
        nonlocal deepest
        deepest = max(deepest, depth)
        groups: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for path, value in part:
            if len(path) > depth:
                groups.setdefault(path[depth], []).append((path, value))
        for name, group in groups.items():
            value = sum(count for _, count in group)
            width = value / total * _WIDTH
            if width >= _NARROWEST:
                boxes.append(_box(name, left, depth, width, value / total))
                draw(group, depth + 1, left)
            left += width

    draw(paths, 0, 0.0)
    height = (deepest + 1) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="monospace" font-size="11">'
        f"{''.join(boxes)}</svg>\n"
    )


def _box(name: str, left: float, depth: int, width: float, share: float) -> str:
    shown = escape((name.rpartition(" ")[2] or name)[: int(width / 7)])
    hue = sum(name.encode()) % 50
    return (
        f"<g><title>{escape(name)} ({share:.1%})</title>"
        f'<rect x="{left:.1f}" y="{depth * _ROW}" width="{width:.1f}" height="{_ROW - 1}" fill="hsl({hue} 80% 65%)"/>'
        f'<text x="{left + 3:.1f}" y="{depth * _ROW + 12}">{shown}</text></g>'
    )


def _paths(profile: Profile) -> Counter[tuple[str, ...]]:
    """The stacks as text, the thread first, with their last value."""
    found: Counter[tuple[str, ...]] = Counter()
    for (thread, stack), values in profile.stacks.items():
        path = tuple(str(place).replace(";", ",") for place in stack)
        found[(thread, *path) if thread else path] += values[-1]
    return found


def _name(place: Place) -> str:
    return place.function or str(place)


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _packed(number: int, values: list[int] | tuple[int, ...]) -> bytes:
    return field(number, b"".join(map(varint, values)))
