"""An SMTP server that delivers nothing: it keeps what it is given, for the console and `backend mails` to show.

Whoever wants to see what becomes of a mail that is not taken sends it to somebody at `refused.example` (550), at
`deferred.example` (450), or at `slow.example`, where the mail is kept at once and the word that it is comes some seconds later.

`python -m devstack.mailbox` runs it until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from datetime import UTC, datetime
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session
from mesh.topology import MAILBOX

from devstack.layout import Layout
from devstack.mails import MOST_BYTES, Mailbox

# Seconds: of a connection that says nothing.
_IDLE_SECONDS = 60
_SLOW_SECONDS = 5.0
_MOST_CONNECTIONS = 64
_OK = "250 OK"
_REFUSALS = {
    "refused.example": "550 5.1.1 nobody of this name is here",
    "deferred.example": "450 4.2.1 not now",
}
_SLOW = "slow.example"


def say(what: str, level: str = "warning") -> None:
    """A line of its log; lost when the disk is full."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with contextlib.suppress(OSError):
        print(json.dumps({"time": moment, "level": level, "service": MAILBOX, "event": what}), flush=True)


class Keeper:
    """What the protocol asks about each recipient and each mail; the names are aiosmtpd's.

    Args:
        mailbox: keeps mails.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Whether somebody is written to."""
        if (refusal := _REFUSALS.get(_domain(address))) is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return _OK

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """Keep a mail."""
        recipient = str(envelope.rcpt_tos[0])
        try:
            self._mailbox.keep(envelope.original_content or b"", recipient, datetime.now(UTC))
        except OSError as error:
            say(f"a mail cannot be kept: {error.strerror}")
            return "452 4.3.1 no room"
        if _domain(recipient) == _SLOW:
            await asyncio.sleep(_SLOW_SECONDS)
        return _OK


class Connections:
    """Makes what serves a connection, for a bounded number of them.

    Args:
        keeper: what is asked.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._open: set[asyncio.BaseTransport] = set()

    def __call__(self) -> SMTP:
        """One more."""
        return _Connection(self._keeper, self._open)


class _Connection(SMTP):
    def __init__(self, keeper: Keeper, others: set[asyncio.BaseTransport]) -> None:
        super().__init__(
            keeper,
            data_size_limit=MOST_BYTES,
            enable_SMTPUTF8=True,
            hostname=MAILBOX,
            ident="the mailbox of this stack",
            timeout=_IDLE_SECONDS,
        )
        self._others = others

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._others.add(transport)
        if len(self._others) > _MOST_CONNECTIONS:
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        # It is forgotten there.
        self._others.discard(self.transport)
        super().connection_lost(error)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


async def run(layout: Layout) -> None:
    """Take mails until SIGTERM."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    keeper = Keeper(Mailbox(layout.mails))
    server = await loop.create_server(Connections(keeper), "127.0.0.1", layout.port(MAILBOX), backlog=_MOST_CONNECTIONS)
    say("started", "info")
    await stopping.wait()
    server.close()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port-offset", type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(run(Layout(arguments.data_dir, arguments.port_offset)))


if __name__ == "__main__":
    main()
