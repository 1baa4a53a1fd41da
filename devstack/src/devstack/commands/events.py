"""`backend events`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from devstack.commands.stack import DataDir, console, errors, running_or_exit
from devstack.layout import DEFAULT_DATA_DIR, Layout

app = typer.Typer(help="Events at the broker, and those given up.", no_args_is_help=True)
dead_letters = typer.Typer(help="Events that a consumer has given up.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")

AsJson = Annotated[bool, typer.Option("--json", help="JSON, an object a line.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", min=0, show_default=False, help="As `list` shows it.")]
_ALL = typer.Option("--all", help="Every one of them.")
_UNKNOWN = 5
T = TypeVar("T")


@app.command()
def streams(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """What waits in each stream, and for which consumer."""
    from devstack.events import ConsumerNow, StreamNow, operating

    layout = _running(data_dir)

    async def ask() -> tuple[list[StreamNow], list[ConsumerNow]]:
        async with operating(layout) as operator:
            return await operator.streams(), await operator.consumers()

    found, consumers = _done(ask())
    if as_json:
        for stream in found:
            _write(
                {"stream": stream.name, "events": stream.messages, "bytes": stream.bytes, "max_bytes": stream.max_bytes}
            )
        for consumer in consumers:
            _write({"consumer": consumer.name, "waiting": consumer.waiting, "in_hand": consumer.in_hand})
        return
    table = Table("stream", "events", "MiB", "of MiB", "oldest", box=None)
    for stream in found:
        sizes = (f"{stream.bytes / 2**20:.1f}", f"{stream.max_bytes / 2**20:.0f}")
        table.add_row(stream.name, str(stream.messages), *sizes, stream.oldest[:19])
    console.print(table)
    table = Table("consumer", "waiting", "in hand", "given again", box=None)
    for consumer in consumers:
        table.add_row(consumer.name, str(consumer.waiting), str(consumer.in_hand), str(consumer.given_again))
    console.print(table if consumers else "no service consumes events")


@app.command()
def tail(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    event_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="Of one type, or of `order.v1.*`.")] = "",
    count: Annotated[int, typer.Option(min=0, metavar="N", help="End after so many; 0: never.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Events as they are published."""
    from devstack.events import first, operating, shown

    layout = _running(data_dir)

    async def follow() -> None:
        async with operating(layout) as operator:
            async for event in first(operator.tail(event_type), count):
                data = shown(event.type, event.data)
                said = {"time": event.time.isoformat(), "type": event.type, "subject": event.subject}
                if as_json:
                    _write({**said, "id": str(event.id), "traceparent": event.traceparent, "data": data})
                else:
                    line = f"{event.time:%H:%M:%S}  {event.type}  {event.subject}  {json.dumps(data)}"
                    console.print(line)

    try:
        _done(follow())
    except KeyboardInterrupt:
        return


@app.command()
def outbox(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """What is recorded and not published yet, and since when."""
    import asyncpg

    from devstack.outboxes import waiting

    layout = _running(data_dir)
    try:
        found = asyncio.run(waiting(layout))
    except (OSError, asyncpg.PostgresError) as error:
        errors.print(f"PostgreSQL does not answer: {error or type(error).__name__}", style="red")
        raise typer.Exit(1) from None
    table = Table("service", "events", "subjects", "since", "first", "published by", box=None)
    for one in found:
        since = one.since.isoformat(timespec="seconds") if one.since else ""
        if as_json:
            numbers = {"service": one.service, "events": one.events, "subjects": one.subjects}
            _write({**numbers, "since": since or None, "first": one.first or None, "relay": one.relay or None})
        table.add_row(one.service, str(one.events), str(one.subjects), since, one.first, one.relay or "nobody")
    if not as_json:
        console.print(table)


@dead_letters.command("list")
def list_letters(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: AsJson = False) -> None:
    """Which there are, and why."""
    from devstack.events import DeadLetter, operating

    layout = _running(data_dir)

    async def ask() -> list[DeadLetter]:
        async with operating(layout) as operator:
            return await operator.dead_letters()

    found = _done(ask())
    table = Table("number", "consumer", "type", "subject", "attempts", "error", box=None)
    for letter in found:
        headers = letter.headers
        cells = (letter.consumer, letter.event_type, headers.get("ce-subject", ""), headers.get("dead-attempts", ""))
        if as_json:
            names = ("consumer", "type", "subject", "attempts", "error")
            _write({"number": letter.number, **dict(zip(names, (*cells, headers.get("dead-error", "")), strict=True))})
        table.add_row(str(letter.number), *cells, headers.get("dead-error", ""))
    if not as_json:
        console.print(table if found else "there are no dead letters")


@dead_letters.command()
def show(
    number: Annotated[int, typer.Argument(help="As `list` shows it.")], data_dir: DataDir = DEFAULT_DATA_DIR
) -> None:
    """One of them whole, as JSON."""
    from devstack.events import DeadLetter, operating, shown

    layout = _running(data_dir)

    async def ask() -> DeadLetter:
        async with operating(layout) as operator:
            return await operator.dead_letter(number)

    letter = _done(ask())
    data = shown(letter.event_type, letter.data)
    sys.stdout.write(json.dumps({"number": number, "headers": dict(letter.headers), "data": data}, indent=2) + "\n")


@dead_letters.command()
def replay(number: Number = 0, every: Annotated[bool, _ALL] = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Give one to its consumer once more, or all of them."""
    _settle(data_dir, number, every=every, again=True)


@dead_letters.command()
def drop(number: Number = 0, every: Annotated[bool, _ALL] = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Remove one for good, or all of them."""
    _settle(data_dir, number, every=every, again=False)


def _settle(data_dir: Path, number: int, *, every: bool, again: bool) -> None:
    from devstack.events import operating

    if bool(number) == every:
        errors.print("which? Its number, or --all", style="red")
        raise typer.Exit(2)
    layout = _running(data_dir)

    async def settle() -> None:
        async with operating(layout) as operator:
            found = await operator.dead_letters() if every else [await operator.dead_letter(number)]
            for letter in found:
                await (operator.replay(letter) if again else operator.drop(letter))
                said = f"given to {letter.consumer} once more" if again else "removed"
                console.print(f"{letter.number}  {letter.event_type}  {said}")

    _done(settle())


def _running(data_dir: Path) -> Layout:
    layout = Layout(data_dir.resolve())
    return Layout(layout.data_dir, running_or_exit(layout).port_offset)


def _done(work: Coroutine[None, None, T]) -> T:
    from chassis.events.publisher import BrokerUnavailable

    from devstack.events import NoConsumerError, NoSuchLetterError

    try:
        return asyncio.run(work)
    except (NoSuchLetterError, NoConsumerError) as error:
        errors.print(str(error), style="red")
        raise typer.Exit(_UNKNOWN) from None
    except BrokerUnavailable as error:
        errors.print(f"the broker does not do it: {error}", style="red")
        raise typer.Exit(1) from None


def _write(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
