"""What is done to the stack's keys, certificates and passwords, as audit events in its log (docs/audit.md).

Each is a line of `logs/audit.log`, of the same shape as those of the services: whoever collects logs reads all of them alike.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from chassis.audit import acts, lines
from mesh.certificates import Issued

from devstack.layout import Layout

# What the supervisor does of its own accord.
SUPERVISOR = "service/supervisor"


def tell(
    layout: Layout,
    action: str,
    subject: str,
    actor: str,
    before: acts.Values = acts.NOTHING,
    after: acts.Values = acts.NOTHING,
) -> None:
    """Write the line of what has been done just now.

    What has been done stays done when the line cannot be written: that is said on standard error.
    """
    now = datetime.now(UTC)
    act = acts.act(action, subject, now, actor=actor, before=before, after=after)
    line = {
        "event": lines.EVENT,
        "level": "info",
        "time": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "service": "backend",
        **lines.members(act),
    }
    try:
        layout.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Appended in one piece: the supervisor may write beside a command.
        descriptor = os.open(layout.logs / "audit.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        print(f"{action} {subject} could not be written to the audit log: {error}", file=sys.stderr)


@contextmanager
def replacing_certificates(layout: Layout, issued: Callable[[], Sequence[Issued]], actor: str) -> Iterator[None]:
    """Around what may replace certificates: each that was there before and is another afterwards is told.

    Args:
        layout: whose log.
        issued: the certificates that are in use when it is called.
        actor: who replaces them.
    """
    before = {certificate.name: certificate for certificate in issued()}
    yield
    for certificate in issued():
        old = before.get(certificate.name)
        if old is not None and old.serial != certificate.serial:
            tell(
                layout,
                "certificate.replaced",
                f"certificate/{certificate.name}",
                actor,
                before={"serial": old.serial},
                after={"serial": certificate.serial, "expires": certificate.not_after.isoformat()},
            )
