"""The mails that a stack on one machine has taken instead of delivering them: a file each, the newest of them.

A mail that comes again, by its Message-ID, is the same mail: it is kept once, and says how often it came.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path

MOST_KEPT = 1000
# Of one mail.
MOST_BYTES = 1024 * 1024
_RECEIVED, _RECIPIENT = "X-Mailbox-Received", "X-Mailbox-Recipient"
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
        message_id = str(message_from_bytes(content, policy=default)["Message-ID"] or "")
        name = hashlib.sha256(message_id.encode() if message_id else content).hexdigest()[:16]
        file = self._directory / f"{name}.eml"
        is_new = name not in self._known
        content = f"{_RECIPIENT}: {recipient}\r\n".encode() + content if is_new else file.read_bytes()
        written = file.with_suffix(".part")
        written.write_bytes(f"{_RECEIVED}: {now.astimezone(UTC).isoformat()}\r\n".encode() + content)
        written.replace(file)
        self._known.pop(name, None)
        self._known[name] = None
        while len(self._known) > self._most:
            eldest = next(iter(self._known))
            (self._directory / f"{eldest}.eml").unlink(missing_ok=True)
            del self._known[eldest]
        return is_new


def newest(directory: Path, most: int) -> list[Mail]:
    """Up to so many that are kept, those that came last first."""
    return [found for file in _newest(directory)[:most] if (found := one(directory, file.stem)) is not None]


def one(directory: Path, mail_id: str) -> Mail | None:
    """A mail; None when there is none of this id."""
    if not _ID.fullmatch(mail_id):
        return None
    try:
        content = (directory / f"{mail_id}.eml").read_bytes()
    except FileNotFoundError:
        return None
    return _read(mail_id, content)


def _newest(directory: Path) -> list[Path]:
    found = []
    # What is removed meanwhile is passed over.
    for file in directory.glob("*.eml") if directory.is_dir() else ():
        with suppress(FileNotFoundError):
            found.append((file.stat().st_mtime_ns, file))
    return [file for _, file in sorted(found, reverse=True)]


def _read(mail_id: str, content: bytes) -> Mail:
    message = message_from_bytes(content, policy=default)
    bodies = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
    texts = {kind: str(part.get_content()).replace("\r\n", "\n") for kind, part in bodies.items() if part is not None}
    return Mail(
        id=mail_id,
        received=[datetime.fromisoformat(str(moment)) for moment in message.get_all(_RECEIVED, ())],
        recipient=str(message[_RECIPIENT] or ""),
        sender=str(message["From"] or ""),
        subject=str(message["Subject"] or ""),
        message_id=str(message["Message-ID"] or ""),
        text=texts.get("plain", ""),
        html=texts.get("html", ""),
    )
