"""`backend debug`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from devstack.commands.inside import asking, processes_or_exit
from devstack.commands.stack import DataDir, console
from devstack.layout import DEFAULT_DATA_DIR, Layout

app = typer.Typer()
What = Literal["tasks", "threads", "state", "profile", "heap"]
# What a file is written as, by the end of its name.
_FORMATS = {".pb.gz": "pprof", ".svg": "svg", ".txt": "folded"}
_PATIENCE_SECONDS = 15.0


class Task(msgspec.Struct):
    """A task of the traffic's loop; places are of the outermost function first."""

    name: str
    coroutine: str
    running: bool
    stack: list[str]
    waits_for: list[str]


class Tasks(msgspec.Struct):
    """All of them, or as many as are told; while the loop hangs, what it is at."""

    hangs: bool
    count: int
    tasks: list[Task]
    running: list[str] = []


class Thread(msgspec.Struct):
    """A thread of Python's."""

    name: str
    stack: list[str]


class Threads(msgspec.Struct):
    """All of them."""

    threads: list[Thread]


class State(msgspec.Struct):
    """What the checks found, and the numbers of each family by their labels."""

    checks: dict[str, str]
    numbers: dict[str, dict[str, float]]


class Line(msgspec.Struct):
    """A line of code with what it has itself, and with what it calls."""

    line: str
    self: int
    all: int


class Top(msgspec.Struct):
    """The lines that have most."""

    what: str
    unit: str
    seconds: float
    total: int
    lines: list[Line]


@app.command()
def debug(
    service: Annotated[str, typer.Argument(help="With all its replicas, or one process: bff, user, order-2.")],
    what: Annotated[What, typer.Argument(help="What is looked at.")],
    seconds: Annotated[
        float, typer.Option(min=0.1, max=30, metavar="N", help="How long a profile is taken, of time or of memory.")
    ] = 10.0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the profile: .pb.gz (go tool pprof, speedscope), .svg, .txt (stacks)."
        ),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Look inside a service that runs, also while it hangs.

    Its tasks, threads and state; where its time and its memory go.

    Functions, files and lines are told, never a value.
    """
    wanted = _format(what, out)
    target = None if out is None else out.resolve()
    layout = Layout(data_dir.resolve())
    names = processes_or_exit(layout, service)
    if target is not None and len(names) > 1:
        console.print(f"one process a file: {', '.join(names)}", style="red")
        raise typer.Exit(2)
    for name in names:
        path = f"/debug/pprof/{what}?seconds={seconds}&format={wanted}" if wanted else f"/debug/{what}"
        body = _ask(layout, name, path, seconds + _PATIENCE_SECONDS)
        if target is not None:
            target.write_bytes(body)
            console.print(f"{name}: {seconds:g} s are in {target}")
        else:
            sys.stdout.write(f"{name}\n{_as_text(what, body)}\n")


def _format(what: What, out: Path | None) -> str:
    """As what a profile is asked for; empty when what is looked at is no profile."""
    if what not in ("profile", "heap"):
        if out is not None:
            console.print(f"{what} are no profile: they are printed", style="red")
            raise typer.Exit(2)
        return ""
    if out is None:
        return "top"
    for ending, wanted in _FORMATS.items():
        if out.name.endswith(ending):
            return wanted
    console.print(f"a profile's file ends in one of {', '.join(_FORMATS)}", style="red")
    raise typer.Exit(2)


def _ask(layout: Layout, name: str, path: str, seconds: float) -> bytes:
    import httpx

    with asking(layout, name, seconds) as ops:
        try:
            answer = ops.get(path)
        except httpx.HTTPError as error:
            console.print(f"{name} does not answer: {error}", style="red")
            raise typer.Exit(1) from None
    if answer.status_code != httpx.codes.OK:
        console.print(f"{name}: {answer.json().get('error', answer.text)}", style="red")
        raise typer.Exit(1)
    return answer.content


def _as_text(what: What, body: bytes) -> str:
    match what:
        case "tasks":
            return _of_tasks(msgspec.json.decode(body, type=Tasks))
        case "threads":
            found = msgspec.json.decode(body, type=Threads).threads
            return "".join(f"  {thread.name}\n{_places(thread.stack)}" for thread in found)
        case "state":
            return _of_state(msgspec.json.decode(body, type=State))
        case "profile" | "heap":
            return _of_top(msgspec.json.decode(body, type=Top))


def _of_tasks(said: Tasks) -> str:
    text = f"  {said.count} tasks\n"
    if said.hangs:
        text = f"  THE LOOP HANGS in\n{_places(said.running)}{text}"
    # A crowd of requests waits in few places.
    alike = Counter((task.coroutine, task.running, tuple(task.stack)) for task in said.tasks)
    some = {(task.coroutine, task.running, tuple(task.stack)): task for task in said.tasks}
    for key, count in alike.most_common():
        task = some[key]
        many = f"{count} times" if count > 1 else task.name
        state = "runs" if task.running else f"waits for {', '.join(task.waits_for) or 'its turn'}"
        text += f"  {many} {task.coroutine}: {state}\n{_places(task.stack)}"
    return text


def _of_state(said: State) -> str:
    text = "".join(f"  {name:<32} {found}\n" for name, found in said.checks.items())
    for family, numbers in sorted(said.numbers.items()):
        text += f"  {family}\n"
        text += "".join(f"    {labels or '·':<56} {value:g}\n" for labels, value in numbers.items())
    return text


def _of_top(said: Top) -> str:
    text = f"  {said.what} in {said.seconds:g} s; self, with what it calls\n"
    total = said.total or 1
    return text + "".join(f"  {one.self / total:6.1%} {one.all / total:6.1%}  {one.line}\n" for one in said.lines)


def _places(stack: list[str]) -> str:
    return "".join(f"      {place}\n" for place in stack)
