"""Keyset cursors: opaque to clients, signed against tampering, bound to the list they belong to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

import msgspec

from chassis.errors import ServiceError

_SIGNATURE_BYTES = 16


class CursorSigner:
    """Makes and reads cursors with one secret shared by all replicas of a service."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def encode(self, scope: str, key: list[str]) -> str:
        """A cursor that continues after `key` in the list that `scope` names (its filters included)."""
        payload = msgspec.msgpack.encode(key)
        return _text(self._signature(scope, payload) + payload)

    def decode(self, scope: str, cursor: str, length: int) -> list[str] | None:
        """The key inside `cursor`, or None for the empty cursor, which is the first page.

        Raises:
            ServiceError: INVALID_CURSOR when it was changed, belongs to another list, or is no cursor at all.
        """
        if not cursor:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            # Base64 can spell the same bytes in several ways; only the one that was issued counts.
            if _text(raw) == cursor and hmac.compare_digest(signature, self._signature(scope, payload)):
                key = msgspec.msgpack.decode(payload, type=list[str])
                if len(key) == length:
                    return key
        except (binascii.Error, ValueError, msgspec.MsgspecError):
            pass
        raise ServiceError("INVALID_CURSOR")

    def _signature(self, scope: str, payload: bytes) -> bytes:
        message = scope.encode() + b"\0" + payload
        return hmac.digest(self._secret, message, hashlib.sha256)[:_SIGNATURE_BYTES]


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
