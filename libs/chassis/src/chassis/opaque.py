"""Bytes as text that is opaque to clients: base64url without padding (RFC 4648, section 5), in its one spelling.

Decoders take several texts for the same bytes: the last character has bits that mean nothing, `+` is taken for `-`, and
padding may be there or not. What is presented in another spelling than it was given in was made up by somebody.
"""

from __future__ import annotations

import base64
import binascii


def encode(raw: bytes) -> str:
    """The text of these bytes."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes | None:
    """The bytes of a text that `encode` has made, None for every other."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if encode(raw) == text else None
