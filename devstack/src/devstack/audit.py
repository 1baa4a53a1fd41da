"""What is done to the stack's keys, certificates and passwords, as audit events in its log (docs/audit.md).

Each is a line of `logs/audit.log`, of the same shape as those of the services: whoever collects logs reads all of them alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from chassis.audit import acts, lines
from chassis.audit.acts import Act
from mesh.certificates import Certificates

from devstack.layout import Layout

# What the supervisor does of its own accord.
SUPERVISOR = "service/supervisor"


def tell(layout: Layout, action: str, subject: str, actor: str, after: acts.Values = acts.NOTHING) -> None:
    """Write the line of what has been done just now; see `write`."""
    write(layout, acts.act(action, subject, datetime.now(UTC), actor=actor, after=after))


def write(layout: Layout, act: Act) -> None:
    """Write the line of an act.

    What has been done stays done when the line cannot be written: that is said on standard error.
    """
    _append(layout, lines.as_json(act, "backend"), f"{act.action} {act.subject}")


def kept(layout: Layout, output: str) -> str:
    """What a program has written, without its lines of the trail, which are in the log from now on."""
    others = []
    for line in output.splitlines(keepends=True):
        if line.startswith("{") and f'"event":"{lines.EVENT}"' in line:
            _append(layout, line.rstrip(), "an act")
        else:
            others.append(line)
    return "".join(others)


def _append(layout: Layout, line: str, what: str) -> None:
    try:
        layout.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Appended in one piece: the supervisor may write beside a command.
        descriptor = os.open(layout.logs / "audit.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (line + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        print(f"{what} could not be written to the audit log: {error}", file=sys.stderr)


@contextmanager
def replacing_certificates(layout: Layout, certificates: Certificates, actor: str) -> Iterator[None]:
    """Around what may replace certificates: each that was there before and is another afterwards is told."""
    before = certificates.issued()
    yield
    for act in certificates.replaced(before, actor):
        write(layout, act)
