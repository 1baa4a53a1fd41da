"""Access tokens: JWT (RFC 7519), ES256, five minutes; keys rotate by `kid`."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import UUID

import jwt
from chassis.errors import ServiceError
from contracts.http import models
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_ALGORITHM = "ES256"
_REQUIRED = ["iss", "aud", "sub", "sid", "roles", "iat", "exp", "jti"]
_VERIFIED_TOKENS = 8192


class SigningKeyError(Exception):
    """The signing keys are missing or unusable."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key and its id, the RFC 7638 thumbprint of its public half."""

    kid: str
    private: ec.EllipticCurvePrivateKey
    jwk: models.JsonWebKey


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says."""

    user_id: str
    session_id: str
    # Unix seconds.
    expires_at: float


def load_keys(directory: Path) -> tuple[SigningKey, ...]:
    """All private keys of a directory, by file name: the last one signs, all verify.

    Raises:
        SigningKeyError: there is none, or one is no P-256 key.
    """
    keys = tuple(_load_key(path) for path in sorted(directory.glob("*.pem")))
    if not keys:
        raise SigningKeyError(f"no signing key (*.pem) in {directory}")
    return keys


def _load_key(path: Path) -> SigningKey:
    private = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise SigningKeyError(f"{path.name} is not a P-256 private key")
    numbers = private.public_key().public_numbers()
    x, y = (_base64url(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    # RFC 7638, section 3: the required members in lexicographic order, no white space.
    canonical = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    kid = _base64url(hashlib.sha256(canonical.encode()).digest())
    jwk = models.JsonWebKey(kty="EC", crv="P-256", x=x, y=y, kid=kid, use="sig", alg="ES256")
    return SigningKey(kid, private, jwk)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class AccessTokens:
    """Issues and verifies access tokens.

    Args:
        keys: see `load_keys`.
        issuer, audience: the `iss` and `aud` claims.
        lifetime: seconds.
        new_id: makes `jti`s.
        now: Unix seconds.
    """

    def __init__(
        self,
        keys: tuple[SigningKey, ...],
        *,
        issuer: str,
        audience: str,
        lifetime: int,
        new_id: Callable[[], UUID],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = {key.kid: key.private.public_key() for key in keys}
        self._signing = keys[-1]
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime
        self._new_id = new_id
        self._now = now
        self.jwks = models.JsonWebKeySet(keys=[key.jwk for key in keys])
        # A signature check costs as much as the rest of a session check together; a token is checked once. What
        # can change while a token lives, its expiry and its session, is checked on every use.
        self._verified = lru_cache(_VERIFIED_TOKENS)(self._verify_signature)

    def issue(self, user_id: str, session_id: str, roles: list[str]) -> str:
        """A signed token for this session."""
        now = int(self._now())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "sid": session_id,
            "roles": roles,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(self._new_id()),
        }
        return jwt.encode(claims, self._signing.private, algorithm=_ALGORITHM, headers={"kid": self._signing.kid})

    def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises:
            ServiceError: UNAUTHENTICATED, whatever is wrong with it.
        """
        try:
            claims = self._verified(token)
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
            raise ServiceError("UNAUTHENTICATED") from None
        if claims.expires_at <= self._now():
            raise ServiceError("UNAUTHENTICATED")
        return claims

    def _verify_signature(self, token: str) -> Claims:
        key = self._keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=self._issuer,
            audience=self._audience,
            options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
        )
        return Claims(str(UUID(claims["sub"])), str(UUID(claims["sid"])), float(claims["exp"]))
