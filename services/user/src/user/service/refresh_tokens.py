"""Refresh tokens: session, generation, and a MAC that only this service can make.

Nothing is stored of a token. Its session's record says which generation is the current one; a token of an earlier
generation is spent. Its MAC proves that we have issued it, so its second use ends the session (reuse detection, RFC 9700
section 4.14.2). A token with a wrong MAC was never issued and ends nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from chassis import opaque
from contracts.user.v1.session_pb2 import SessionRecord

_MAC_BYTES = 32
_HEAD_BYTES = 16 + 4


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """What a refresh token says of itself."""

    session_id: str
    generation: int
    mac: bytes


class RefreshTokens:
    """Makes and checks refresh tokens.

    Args:
        secret: shared by all replicas of the service.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def current(self, record: SessionRecord) -> str:
        """The session's current token; the same whenever it is asked for."""
        head = UUID(record.id).bytes + record.generation.to_bytes(4, "big")
        return opaque.encode(head + self._mac(head, record.salt))

    def is_authentic(self, token: PresentedToken, record: SessionRecord) -> bool:
        """Whether the token, current or spent, was issued for this session."""
        head = UUID(token.session_id).bytes + token.generation.to_bytes(4, "big")
        return hmac.compare_digest(token.mac, self._mac(head, record.salt))

    def _mac(self, head: bytes, salt: bytes) -> bytes:
        return hmac.digest(self._secret, b"refresh-token\0" + head + salt, hashlib.sha256)


def parse(token: str) -> PresentedToken | None:
    """The parts of a token, or None when it is none."""
    raw = opaque.decode(token)
    if raw is None or len(raw) != _HEAD_BYTES + _MAC_BYTES:
        return None
    return PresentedToken(str(UUID(bytes=raw[:16])), int.from_bytes(raw[16:_HEAD_BYTES], "big"), raw[_HEAD_BYTES:])
