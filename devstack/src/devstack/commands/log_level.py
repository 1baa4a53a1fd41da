"""`backend log-level`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from devstack.commands.inside import asking, processes_or_exit
from devstack.commands.stack import DataDir, console
from devstack.layout import DEFAULT_DATA_DIR, Layout
from devstack.logs.selection import parse_duration

app = typer.Typer()


@app.command("log-level")
def log_level(
    service: Annotated[str, typer.Argument(help="With all its replicas: bff, user, order or limiter.")],
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Argument(help="Without it, what it is now.")
    ] = None,
    duration: Annotated[
        str,
        typer.Option(
            "--for", metavar="TIME", help="After which it is the usual one again: 90s, 10m, 2h; a day at most."
        ),
    ] = "15m",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """What a service logs, without a restart and for a while. Debug has a line for every call."""
    import httpx

    try:
        seconds = parse_duration(duration).total_seconds()
    except ValueError as error:
        console.print(str(error), style="red")
        raise typer.Exit(2) from None
    layout = Layout(data_dir.resolve())
    # The edge has no Python, and its access log has every request.
    for name in processes_or_exit(layout, service):
        with asking(layout, name) as ops:
            try:
                if level is None:
                    answer = ops.get("/log-level")
                else:
                    answer = ops.put("/log-level", json={"level": level, "seconds": seconds})
            except httpx.HTTPError as error:
                console.print(f"{name} does not answer: {error}", style="red")
                raise typer.Exit(1) from None
        said = answer.json()
        if answer.status_code != httpx.codes.OK:
            console.print(f"{name}: {said.get('error', said)}", style="red")
            raise typer.Exit(2)
        until = f" for {said['seconds_left']:.0f} s, then {said['usual']}" if "usual" in said else ""
        console.print(f"{name:<8} {said['level']}{until}")
