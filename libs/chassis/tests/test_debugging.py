"""What is told of a process from inside: bounded, one profile at a time, without values, also while its loop hangs."""

from __future__ import annotations

import asyncio
import gzip
import sys
import threading
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from typing import Any
from xml.etree.ElementTree import fromstring

import msgspec
import pytest
from chassis.debugging import formats, stacks
from chassis.debugging.endpoints import Debugging
from chassis.debugging.profiles import Profile
from chassis.debugging.stacks import Place, Traffic


@contextmanager
def traffic() -> Iterator[Traffic]:
    """A loop in a thread of its own, as the host runs the one of the traffic."""
    found: Future[Traffic] = Future()
    loop = asyncio.new_event_loop()

    def run() -> None:
        loop.call_soon(lambda: found.set_result(Traffic.here()))
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, name="MainThread of a host")
    thread.start()
    try:
        yield found.result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


async def ask(path: str, query: str = "", of: Traffic | None = None, by: Debugging | None = None) -> tuple[int, Any]:
    answer = await (by or Debugging()).answer(path, query, of, {"valkey": "ok"})
    assert answer is not None
    status, media, body = answer
    return status, msgspec.json.decode(body) if media == "application/json" else body


async def sleeps(password: str) -> str:
    await asyncio.sleep(60)
    return password


async def gathers() -> None:
    await asyncio.gather(sleeps("hunter2-first"), sleeps("hunter2-second"))


def hangs(began: threading.Event, until: threading.Event, password: str) -> None:
    began.set()
    while not until.is_set():
        time.sleep(0.001)
    assert password


def works(until: threading.Event) -> int:
    total = 0
    while not until.is_set():
        total += sum(range(500))
    return total


async def test_each_task_is_told_with_where_it_waits_and_no_value() -> None:
    with traffic() as of:
        of.loop.call_soon_threadsafe(lambda: of.loop.create_task(gathers(), name="order of somebody"))
        while len(asyncio.all_tasks(of.loop)) < 3:
            await asyncio.sleep(0.001)
        # Until each has come to where it waits.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), of.loop))
        status, said = await ask("tasks", of=of)
    assert (status, said["hangs"], said["count"]) == (200, False, 3)
    parent = next(task for task in said["tasks"] if task["name"] == "order of somebody")
    children = [task for task in said["tasks"] if task is not parent]
    assert parent["coroutine"] == "gathers"
    assert parent["stack"][0].endswith(" gathers")
    assert parent["waits_for"] == [f"task {task['name']}" for task in children]
    for task in children:
        assert [place.rpartition(" ")[2] for place in task["stack"]] == ["sleeps", "sleep"]
        assert task["stack"][1].startswith("asyncio/tasks.py:")
    assert "hunter2" not in str(said)


async def test_what_a_loop_that_hangs_is_at_is_told_all_the_same() -> None:
    began, until = threading.Event(), threading.Event()
    with traffic() as of:
        of.loop.call_soon_threadsafe(lambda: of.loop.create_task(sleeps("hunter2")))
        while not asyncio.all_tasks(of.loop):
            await asyncio.sleep(0.001)
        of.loop.call_soon_threadsafe(hangs, began, until, "hunter2")
        try:
            assert await asyncio.to_thread(began.wait, 10)
            _, said = await ask("tasks", of=of)
            _, threads = await ask("threads", of=of)
        finally:
            until.set()
    assert (said["hangs"], said["count"]) == (True, 1)
    assert said["running"][-1].endswith(" hangs")
    assert said["tasks"][0]["coroutine"] == "sleeps"
    at = {thread["name"]: thread["stack"] for thread in threads["threads"]}
    assert at["traffic"][-1].endswith(" hangs")
    assert at["ops"]
    assert "hunter2" not in str((said, threads))


async def test_what_is_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "MOST_TASKS", 5)

    async def deep(levels: int) -> None:
        await (deep(levels - 1) if levels else asyncio.sleep(60))

    async def start() -> None:
        for number in range(20):
            asyncio.create_task(deep(200), name=f"{number} {'n' * 500}")  # noqa: RUF006 - the loop ends with the test
        await asyncio.sleep(0)

    with traffic() as of:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(start(), of.loop))
        _, said = await ask("tasks", of=of)
    assert (said["count"], len(said["tasks"])) == (20, 5)
    assert {(len(task["stack"]), len(task["name"])) for task in said["tasks"]} == {(stacks.MOST_FRAMES, 100)}


def decoded(message: bytes) -> dict[int, list[Any]]:
    """A protobuf message: by number of field, numbers and bytes (protobuf.dev/programming-guides/encoding)."""
    found: dict[int, list[Any]] = defaultdict(list)
    rest = iter(message)
    while (tag := varint(rest)) is not None:
        value = varint(rest)
        assert tag & 7 in (0, 2), tag
        assert value is not None
        found[tag >> 3].append(value if tag & 7 == 0 else bytes(islice(rest, value)))
    return found


def varint(rest: Iterator[int]) -> int | None:
    value = shift = 0
    for byte in rest:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value
    assert shift == 0, "it ends within a number"
    return None


def numbers(packed: bytes) -> list[int]:
    rest, found = iter(packed), []
    while (value := varint(rest)) is not None:
        found.append(value)
    return found


def functions_of(profile: bytes) -> tuple[list[str], dict[tuple[str, ...], list[int]]]:
    """The kinds of values, and the values by the functions of a stack, the outermost first (google/pprof, profile.proto)."""
    parts = decoded(gzip.decompress(profile))
    strings = [text.decode() for text in parts[6]]
    assert strings[0] == ""
    names = {fields[1][0]: strings[fields[2][0]] for fields in map(decoded, parts[5])}
    places = {fields[1][0]: names[decoded(fields[4][0])[1][0]] for fields in map(decoded, parts[4])}
    assert 0 not in places
    found = {}
    for fields in map(decoded, parts[2]):
        stack = tuple(places[number] for number in reversed(numbers(fields[1][0])))
        found[stack] = numbers(fields[2][0])
    return [strings[decoded(kind)[1][0]] for kind in parts[1]], found


async def test_a_profile_of_time_names_what_works_and_leaves_nothing_on() -> None:
    until, usual, by = threading.Event(), sys.getswitchinterval(), Debugging()
    with traffic() as of:
        of.loop.call_soon_threadsafe(works, until)
        try:
            first = asyncio.create_task(ask("pprof/profile", "seconds=0.3", of, by))
            await asyncio.sleep(0.05)
            assert await ask("pprof/heap", "seconds=0.1", of, by) == (
                409,
                {"error": "a profile is being taken; ask again when it is done"},
            )
            status, profile = await first
            kinds, found = functions_of(profile)
            # Whether its thread has had the machine in so short a time is the machine's affair.
            async with asyncio.timeout(20):
                while not any(stack[-1] == "works" and cpu > 0 for stack, (_, _, cpu) in found.items()):
                    _, profile = await ask("pprof/profile", "seconds=0.3", of, by)
                    kinds, found = functions_of(profile)
        finally:
            until.set()
    assert (status, kinds) == (200, ["samples", "wall", "cpu"])
    assert sys.getswitchinterval() == usual


def test_other_formats_have_the_same() -> None:
    outer, inner, other = (
        Place("/x/src/order/a.py", 1, "a"),
        Place("/x/src/order/b.py", 2, "b<c>"),
        Place("", 0, "(idle)"),
    )
    found = {("traffic", (outer, inner)): (3, 30), ("traffic", (outer,)): (1, 10), ("", (other,)): (1, 0)}
    profile = Profile((("samples", "count"), ("cpu", "nanoseconds")), found, began=0.0, seconds=1.0)
    assert formats.folded(profile) == "traffic;order/a.py:1 a 10\ntraffic;order/a.py:1 a;order/b.py:2 b<c> 30\n"
    kinds, stacks_found = functions_of(formats.pprof(profile))
    assert (kinds, stacks_found) == (["samples", "cpu"], {("a", "b<c>"): [3, 30], ("a",): [1, 10], ("(idle)",): [1, 0]})
    svg = formats.flame_graph(profile)
    assert "order/b.py:2 b&lt;c&gt; (75.0%)" in svg
    assert len(fromstring(svg)) == 3  # noqa: S314 - it is our own
    lines = [{"line": "order/b.py:2 b<c>", "self": 30, "all": 30}, {"line": "order/a.py:1 a", "self": 10, "all": 40}]
    said = formats.top(profile)
    assert (said["what"], said["total"], said["lines"]) == (
        "cpu",
        40,
        [*lines, {"line": "(idle)", "self": 0, "all": 0}],
    )


@pytest.mark.parametrize(("wanted", "media"), [("folded", "text/plain; charset=utf-8"), ("svg", "image/svg+xml")])
async def test_a_format_is_asked_for(wanted: str, media: str) -> None:
    answer = await Debugging().answer("pprof/profile", f"seconds=0.02&format={wanted}", None, None)
    assert answer is not None
    assert answer[:2] == (200, media)


@pytest.mark.parametrize("path", ["pprof/profile", "pprof/heap"])
async def test_who_does_not_wait_for_a_profile_leaves_nothing_on(path: str) -> None:
    usual, by = sys.getswitchinterval(), Debugging()
    asked = asyncio.create_task(ask(path, "seconds=30", None, by))
    await asyncio.sleep(0.05)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (sys.getswitchinterval(), tracemalloc.is_tracing()) == (usual, False)
    assert (await ask(path, "seconds=0.02", None, by))[0] == 200


async def test_a_profile_of_memory_names_the_line_that_keeps_it() -> None:
    kept: list[bytes] = []
    asked = asyncio.create_task(ask("pprof/heap", "seconds=0.1"))
    await asyncio.sleep(0.05)
    assert tracemalloc.is_tracing()
    kept.append(bytes(3_000_000))
    status, profile = await asked
    kinds, found = functions_of(profile)
    assert (status, kinds) == (200, ["inuse_objects", "inuse_space"])
    assert any(size >= len(kept[0]) and "test_debugging.py:" in stack[-1] for stack, (_, size) in found.items())
    assert not tracemalloc.is_tracing()


async def test_it_keeps_its_hands_off_a_tracemalloc_of_somebody_elses() -> None:
    tracemalloc.start()
    try:
        assert (await ask("pprof/heap", "seconds=0.01"))[0] == 409
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "query",
    ["seconds=0", "seconds=-1", "seconds=30.1", "seconds=nan", "seconds=inf", "seconds=", "seconds=1e400", "seconds=x",
     "format=", "format=html", "seconds=1&hz=1000"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["pprof/profile", "pprof/heap"])
async def test_what_is_asked_for_is_bounded(path: str, query: str) -> None:
    status, said = await ask(path, query)
    assert (status, set(said)) == (400, {"error"})


async def test_state_is_what_the_metrics_know_already() -> None:
    from chassis.metrics.families import FAMILIES, Reading

    reading = Reading("backend_things_of_a_test", "Things", "kind")
    try:
        reading.read(lambda: 7, "rare")
        status, said = await ask("state")
    finally:
        del FAMILIES[reading.name]
    assert (status, said["checks"]) == (200, {"valkey": "ok"})
    assert said["numbers"]["backend_things_of_a_test"] == {"kind=rare": 7}


async def test_there_is_nothing_else() -> None:
    for path in ("", "pprof", "tasks/", "vars", "../log-level"):
        assert await Debugging().answer(path, "", None, None) is None
    assert (await ask("tasks"))[0] == 503
