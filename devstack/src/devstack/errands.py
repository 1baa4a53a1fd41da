"""Programs that a start runs to their end: initdb, the migrations, the loading of demo data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


async def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    setup: Callable[[], None] | None = None,
) -> tuple[int, str]:
    """Run a program to its end; its exit status, and what it wrote. It is killed when this is cancelled.

    Args:
        command: the program and its arguments.
        environment: its variables; ours without.
        cwd: its working directory; ours without.
        setup: what the child does between fork and exec.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=None if environment is None else dict(environment),
        cwd=cwd,
        preexec_fn=setup,
        # Ctrl-C in a terminal is for the command line.
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            # With what it started itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")
