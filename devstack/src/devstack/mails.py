"""The mails that a stack on one machine has taken instead of delivering them: a file each, the newest of them.

A mail that comes again, by its Message-ID, is the same mail: it is kept once, and says how often it came.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.parser import BytesHeaderParser
from email.policy import compat32, default
from pathlib import Path

MOST_KEPT = 1000
# Of one mail.
MOST_BYTES = 1024 * 1024
_RECEIVED, _RECIPIENT = "X-Mailbox-Received", "X-Mailbox-Recipient"
# So often a mail may come of which all times are kept.
_MOST_TIMES = 100
_SHOWN = ("From", "Subject", "Message-ID")
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was taken.

    Attributes:
        id: its name here.
        received: when it came, each time, the last first; UTC.
        recipient: whom it was sent to, as the envelope says.
    """

    id: str
    received: Sequence[datetime]
    recipient: str
    sender: str
    subject: str
    message_id: str
    text: str
    html: str


class Mailbox:
    """Keeps mails in a directory.

    Args:
        directory: made when it is not there; nobody else writes there.
        most: how many are kept.
    """

    def __init__(self, directory: Path, most: int = MOST_KEPT) -> None:
        self._directory = directory
        self._most = most
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The eldest first.
        self._known = {file.stem: None for file in reversed(_newest(directory))}

    def keep(self, content: bytes, recipient: str, now: datetime) -> bool:
        """Keep a mail; whether it is new.

        Raises:
            OSError: the disk is full, or refuses it.
        """
        # As it is: what else there is to it is read when it is shown.
        message_id = str(BytesHeaderParser(policy=compat32).parsebytes(content)["Message-ID"] or "")
        name = hashlib.sha256(message_id.encode(errors="replace") if message_id else content).hexdigest()[:16]
        file = self._directory / f"{name}.eml"
        kept = _Kept([], recipient, content)
        with suppress(FileNotFoundError, ValueError):
            kept = _Kept.of(file.read_bytes())
        is_new = not kept.received
        kept.received.insert(0, now.astimezone(UTC))
        written = file.with_suffix(".part")
        written.write_bytes(kept.as_bytes())
        written.replace(file)
        self._known.pop(name, None)
        self._known[name] = None
        while len(self._known) > self._most:
            eldest = next(iter(self._known))
            (self._directory / f"{eldest}.eml").unlink(missing_ok=True)
            del self._known[eldest]
        return is_new


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file: lines of ours, and what came from the next line on, whatever that says."""

    # The last first.
    received: list[datetime]
    recipient: str
    content: bytes

    @classmethod
    def of(cls, raw: bytes) -> _Kept:
        """Raises ValueError: it is none of ours."""
        received: list[datetime] = []
        while True:
            line, end, raw = raw.partition(b"\r\n")
            name, _, value = line.decode(errors="replace").partition(": ")
            if name == _RECIPIENT and received:
                return cls(received, value, raw)
            if name != _RECEIVED or not end:
                raise ValueError("it is no mail that was kept here")
            received.append(datetime.fromisoformat(value))

    def as_bytes(self) -> bytes:
        lines = [f"{_RECEIVED}: {moment.isoformat()}\r\n" for moment in self.received[:_MOST_TIMES]]
        return "".join([*lines, f"{_RECIPIENT}: {self.recipient}\r\n"]).encode(errors="replace") + self.content


def newest(directory: Path, most: int) -> list[Mail]:
    """Up to so many that are kept, those that came last first."""
    return [found for file in _newest(directory)[:most] if (found := one(directory, file.stem)) is not None]


def one(directory: Path, mail_id: str) -> Mail | None:
    """A mail; None when there is none of this id."""
    if not _ID.fullmatch(mail_id):
        return None
    try:
        return _read(mail_id, _Kept.of((directory / f"{mail_id}.eml").read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def _newest(directory: Path) -> list[Path]:
    found = []
    # What is removed meanwhile is passed over.
    for file in directory.glob("*.eml") if directory.is_dir() else ():
        with suppress(FileNotFoundError):
            found.append((file.stat().st_mtime_ns, file))
    return [file for _, file in sorted(found, reverse=True)]


def _read(mail_id: str, kept: _Kept) -> Mail:
    try:
        headers, texts = _parsed(kept.content)
    except Exception:
        # The library raises whatever it likes at what strangers make of headers. It is shown as it came.
        headers, texts = dict.fromkeys(_SHOWN, "(cannot be read)"), {"plain": kept.content.decode(errors="replace")}
    sender, subject, message_id = (_text(headers[name]) for name in _SHOWN)
    return Mail(
        id=mail_id,
        received=kept.received,
        recipient=kept.recipient,
        sender=sender,
        subject=subject,
        message_id=message_id,
        text=_text(texts.get("plain", "")),
        html=_text(texts.get("html", "")),
    )


def _parsed(content: bytes) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The headers that are shown, and the texts by their kind."""
    message = message_from_bytes(content, policy=default)
    bodies = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
    texts = {kind: str(part.get_content()).replace("\r\n", "\n") for kind, part in bodies.items() if part is not None}
    return {name: str(message[name] or "") for name in _SHOWN}, texts


def _text(text: str) -> str:
    """Text that UTF-8 can say: what is none has come as halves of characters."""
    return text.encode(errors="replace").decode()
