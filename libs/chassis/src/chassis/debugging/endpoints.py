"""`/debug/…` of the ops application.

    /debug/tasks                     each task of the traffic's loop, where it waits and for what
    /debug/threads                   each thread, where it is
    /debug/state                     checks, pools, lanes, workers, queues, caches: what the metrics know, as JSON
    /debug/pprof/profile?seconds=10  where the time goes; &format=pprof|folded|svg|top
    /debug/pprof/heap?seconds=10     what is allocated in that time and not freed; the same formats

Answered over the process's own Unix socket only, which its owner alone opens: the ops listener knows none of these paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec

from chassis.debugging import formats, stacks
from chassis.debugging.profiles import MOST_SECONDS, BusyError, Profile, Profiler
from chassis.debugging.stacks import Traffic
from chassis.metrics.families import FAMILIES

_USUAL_SECONDS = 10.0
_JSON = "application/json"
_FORMATS = ("pprof", "folded", "svg", "top")

# The status, the media type and the body.
Answer = tuple[int, str, bytes]


class Debugging:
    """Answers what is asked of the process that it is in."""

    def __init__(self) -> None:
        self._profiler = Profiler()

    async def answer(
        self, path: str, query: str, traffic: Traffic | None, checks: Mapping[str, str] | None
    ) -> Answer | None:
        """What is told under a path; None when nothing is.

        Args:
            path: below `/debug/`.
            query: without the question mark.
            traffic: None before the process has started.
            checks: of readiness, and what each found; asked for by the caller, for `state` alone.
        """
        match path:
            case "tasks" if traffic is not None:
                return _as_json(200, await stacks.tasks(traffic))
            case "tasks":
                return _as_json(503, {"error": "not started"})
            case "threads":
                return _as_json(200, {"threads": stacks.threads(traffic)})
            case "state":
                return _as_json(200, {"checks": checks or {}, "numbers": _numbers()})
            case "pprof/profile" | "pprof/heap":
                return await self._profile(path, query, traffic)
            case _:
                return None

    async def _profile(self, path: str, query: str, traffic: Traffic | None) -> Answer:
        try:
            seconds, wanted = _wanted(query)
        except ValueError as error:
            return _as_json(400, {"error": str(error)})
        try:
            if path == "pprof/heap":
                profile = await self._profiler.memory(seconds)
            else:
                profile = await self._profiler.time(seconds, traffic)
        except BusyError as error:
            return _as_json(409, {"error": str(error)})
        return _formatted(profile, wanted)


def _formatted(profile: Profile, wanted: str) -> Answer:
    match wanted:
        case "folded":
            return 200, "text/plain; charset=utf-8", formats.folded(profile).encode()
        case "svg":
            return 200, "image/svg+xml", formats.flame_graph(profile).encode()
        case "top":
            return _as_json(200, formats.top(profile))
        case _:
            return 200, "application/octet-stream", formats.pprof(profile)


def _wanted(query: str) -> tuple[float, str]:
    """For how many seconds, and the format.

    Raises:
        ValueError: it is none of ours; says why.
    """
    said = dict(parse_qsl(query, keep_blank_values=True))
    text, wanted = said.pop("seconds", str(_USUAL_SECONDS)), said.pop("format", "pprof")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"seconds is more than 0 and at most {MOST_SECONDS:g}")
    if wanted not in _FORMATS or said:
        raise ValueError(f"there are seconds and format, which is one of {', '.join(_FORMATS)}")
    return seconds, wanted


def _numbers() -> dict[str, dict[str, float]]:
    """Of every family but histograms, its numbers by their labels; counters that have counted nothing are left out."""
    found: dict[str, dict[str, float]] = {}
    for name, family in FAMILIES.items():
        if family.kind == "histogram":
            continue
        for sample in family.samples():
            if sample.value or family.kind == "gauge":
                labels = ",".join(f"{label}={value}" for label, value in sample.labels)
                found.setdefault(name, {})[labels] = float(sample.value)
    return found


def _as_json(status: int, said: Mapping[str, object]) -> Answer:
    return status, _JSON, msgspec.json.encode(said)
