"""Access tokens as everybody verifies them: JWT (RFC 7519), ES256, against a set of public keys that changes.

The User service alone signs (`user.service.access_tokens`); the edge, the BFF and every service verify, each for
itself. A call that came around the edge gains nothing without a token that a person was given. A BFF that was taken over
makes no tokens either; what it can do with those that pass through it is in docs/network.md.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from chassis import opaque
from chassis.config import TokenSettings
from chassis.errors import ServiceError
from chassis.json_web_keys import JsonWebKeySet
from chassis.metrics.families import Counter

ALGORITHM = "ES256"
_REQUIRED = ["iss", "aud", "sub", "sid", "roles", "iat", "exp", "jti"]
_REMEMBERED = 8192
_VERIFICATIONS = Counter(
    "backend_token_verifications_total",
    "Access tokens that were presented: known already, checked, or refused",
    result=("known", "checked", "refused"),
)
_LOOK_SECONDS = 1.0
# A token that was good when the request began is good until its end, and the longest takes this long.
_LEEWAY_SECONDS = 10.0
# How far the clocks of issuer and verifiers may be apart.
SKEW_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says."""

    user_id: str
    session_id: str
    roles: tuple[str, ...]
    # Unix seconds.
    expires_at: float


class PublicKeys(Protocol):
    """Public keys by `kid`; `generation` changes when they do."""

    generation: int

    def current(self) -> Mapping[str, EllipticCurvePublicKey]:
        """All keys that verify now."""


class JwksFile:
    """The public keys of a JSON Web Key Set file (RFC 7517), read again when it changes.

    Args:
        path: a file that is replaced as a whole (renamed over, or a mounted config map).
        clock: seconds, monotonic.

    Raises:
        OSError, ValueError: it cannot be read at start. Later, what was read last stays in force.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self.generation = 0
        self._looked = clock()
        self._stamp = self._read_stamp()
        self._published, self._keys = self._read()

    def published(self) -> JsonWebKeySet:
        """The set itself, for others to verify with. Public members only, whatever else the file holds."""
        self.current()
        return self._published

    def current(self) -> Mapping[str, EllipticCurvePublicKey]:
        """All keys that verify now; the file is looked at once a second."""
        now = self._clock()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            try:
                if (stamp := self._read_stamp()) != self._stamp:
                    self._published, self._keys = self._read()
                    self._stamp = stamp
                    self.generation += 1
            except (OSError, ValueError):
                pass
        return self._keys

    def _read_stamp(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino

    def _read(self) -> tuple[JsonWebKeySet, dict[str, EllipticCurvePublicKey]]:
        found = msgspec.json.decode(self._path.read_bytes(), type=JsonWebKeySet)
        keys = {}
        for jwk in found.keys:
            key = jwt.PyJWK(msgspec.to_builtins(jwk), ALGORITHM).key
            if not isinstance(key, EllipticCurvePublicKey):
                raise ValueError(f"{self._path}: {jwk.kid} is not an elliptic curve key")  # noqa: TRY004 - of the file
            keys[jwk.kid] = key
        return found, keys


def token_verifier(settings: TokenSettings) -> TokenVerifier:
    """The verifier of a service behind the BFF.

    Raises:
        OSError, ValueError: the key set cannot be read.
    """
    return TokenVerifier(
        JwksFile(settings.jwks_file),
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=settings.access_token_seconds,
        leeway=_LEEWAY_SECONDS,
    )


class TokenVerifier:
    """Verifies access tokens.

    Args:
        keys: see `PublicKeys`.
        issuer, audience: the `iss` and `aud` claims.
        lifetime: seconds that the issuer gives a token; one that says it lives longer is refused, whoever signed it.
        leeway: seconds for which an expired token is still good: behind the BFF, the rest of a request's life.
        now: Unix seconds.
    """

    def __init__(
        self,
        keys: PublicKeys,
        *,
        issuer: str,
        audience: str,
        lifetime: int,
        leeway: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime
        self._leeway = leeway
        self._now = now
        # A signature check costs as much as the rest of a hot read; a token is checked once. By hash, so that no
        # token lies in memory longer than its request. What can change while a token lives is checked on every use.
        self._verified: dict[bytes, Claims] = {}
        self._generation = keys.generation

    def verify(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises:
            ServiceError: UNAUTHENTICATED, whatever is wrong with it.
        """
        keys = self._keys.current()
        if self._keys.generation != self._generation:
            self._verified.clear()
            self._generation = self._keys.generation
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest)
        result = "known"
        if claims is None:
            result = "checked"
            try:
                claims = self._check(token, keys)
            except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, OverflowError):
                _VERIFICATIONS.add("refused")
                raise ServiceError("UNAUTHENTICATED") from None
            if len(self._verified) >= _REMEMBERED:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = claims
        if claims.expires_at + self._leeway <= self._now():
            _VERIFICATIONS.add("refused")
            raise ServiceError("UNAUTHENTICATED")
        _VERIFICATIONS.add(result)
        return claims

    def _check(self, token: str, keys: Mapping[str, EllipticCurvePublicKey]) -> Claims:
        # The signature covers the spelling of all parts but its own.
        if opaque.decode(token.rpartition(".")[2]) is None:
            raise ValueError("the signature is not spelled as it was given")
        claims = jwt.decode(
            token,
            keys[jwt.get_unverified_header(token)["kid"]],
            algorithms=[ALGORITHM],
            issuer=self._issuer,
            audience=self._audience,
            options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
        )
        roles = claims["roles"]
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise ValueError("roles must be a list of strings")
        # As integers: NaN, which JSON readers take for a number, is before no time and after none.
        issued, expires = int(claims["iat"]), int(claims["exp"])
        if issued > self._now() + SKEW_SECONDS or expires - issued > self._lifetime + SKEW_SECONDS:
            raise ValueError("the token lives longer than its issuer lets it, or begins later")
        return Claims(str(UUID(claims["sub"])), str(UUID(claims["sid"])), tuple(roles), float(expires))
