"""Keyset cursors: opaque to clients, signed against tampering, bound to the list they belong to."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress

import msgspec

from chassis import opaque
from chassis.errors import ServiceError

_SIGNATURE_BYTES = 16


class CursorSigner:
    """Makes and reads cursors with one secret shared by all replicas of a service."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def encode(self, scope: str, key: list[str]) -> str:
        """A cursor that continues after `key` in the list that `scope` names (its filters included)."""
        payload = msgspec.msgpack.encode(key)
        return opaque.encode(self._signature(scope, payload) + payload)

    def decode(self, scope: str, cursor: str, length: int) -> list[str] | None:
        """The key inside `cursor`, or None for the empty cursor, which is the first page.

        Raises:
            ServiceError: INVALID_CURSOR when it was changed, belongs to another list, or is no cursor at all.
        """
        if not cursor:
            return None
        raw = opaque.decode(cursor)
        if raw is not None:
            signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if hmac.compare_digest(signature, self._signature(scope, payload)):
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    # With a secret that is none, anybody signs what is no key.
                    key = msgspec.msgpack.decode(payload, type=list[str])
                    if len(key) == length:
                        return key
        raise ServiceError("INVALID_CURSOR")

    def _signature(self, scope: str, payload: bytes) -> bytes:
        message = scope.encode() + b"\0" + payload
        return hmac.digest(self._secret, message, hashlib.sha256)[:_SIGNATURE_BYTES]
