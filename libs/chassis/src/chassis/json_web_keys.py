"""The public keys that verify access tokens, as they are published: a JSON Web Key Set (RFC 7517) of P-256 keys.

Only these members are read and written: a private member that a file might hold never gets any further.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class JsonWebKey(Struct, frozen=True, kw_only=True):
    """A public key for ES256 (RFC 7518, section 6.2.1); `kid` is its RFC 7638 thumbprint."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    # The coordinates: base64url, without padding.
    x: str
    y: str
    kid: str
    use: Literal["sig"]
    alg: Literal["ES256"]


class JsonWebKeySet(Struct, frozen=True, kw_only=True):
    """All public keys that verify now."""

    keys: list[JsonWebKey]
