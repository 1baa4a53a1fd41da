"""The keys that sign access tokens, from files. This service alone has them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from chassis import opaque
from chassis.json_web_keys import JsonWebKey
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_LOOK_SECONDS = 1.0
_NAME = "%Y%m%dT%H%M%S"
_log = structlog.get_logger(__name__)


class SigningKeyError(Exception):
    """The signing keys are missing or unusable."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key and its id, the RFC 7638 thumbprint of its public half."""

    kid: str
    # Unix seconds.
    created: float
    private: ec.EllipticCurvePrivateKey
    jwk: JsonWebKey


def load_keys(directory: Path) -> tuple[SigningKey, ...]:
    """All private keys of a directory, oldest first; a file is named by its time, 20261231T235959.pem (UTC).

    Raises:
        SigningKeyError: there is none, or one is no P-256 key or has another name.
    """
    keys = tuple(_load_key(path) for path in sorted(directory.glob("*.pem")))
    if not keys:
        raise SigningKeyError(f"no signing key (*.pem) in {directory}")
    return keys


def _load_key(path: Path) -> SigningKey:
    try:
        created = datetime.strptime(path.stem, _NAME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise SigningKeyError(f"{path.name} is not named by its time, like 20261231T235959.pem") from None
    private = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise SigningKeyError(f"{path.name} is not a P-256 private key")
    numbers = private.public_key().public_numbers()
    x, y = (opaque.encode(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    # RFC 7638, section 3: the required members in lexicographic order, no white space.
    canonical = json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
    kid = opaque.encode(hashlib.sha256(canonical.encode()).digest())
    jwk = JsonWebKey(kty="EC", crv="P-256", x=x, y=y, kid=kid, use="sig", alg="ES256")
    return SigningKey(kid, created, private, jwk)


class SigningKeys:
    """The keys of a directory, read again when it changes: the newest that all verifiers know signs.

    Args:
        directory: see `load_keys`.
        activation: seconds from a key's making until it signs: until then it is only published.
        now: Unix seconds.

    Raises:
        SigningKeyError: see `load_keys`. Later, what was read last stays in force.
    """

    def __init__(self, directory: Path, activation: float, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._activation = activation
        self._now = now
        self._looked = now()
        self._stamp = directory.stat().st_mtime_ns
        self._all = load_keys(directory)

    def all(self) -> tuple[SigningKey, ...]:
        """Every key, oldest first."""
        now = self._now()
        if abs(now - self._looked) >= _LOOK_SECONDS:
            self._looked = now
            try:
                if (stamp := self._directory.stat().st_mtime_ns) != self._stamp:
                    self._all = load_keys(self._directory)
                    self._stamp = stamp
                    _log.info("signing keys changed", kids=[key.kid for key in self._all])
            except (OSError, ValueError, SigningKeyError) as error:
                _log.error("signing keys could not be read again", error=str(error))
        return self._all

    def signing(self) -> SigningKey:
        """The newest key that has been published for long enough; the oldest when none has."""
        known = [key for key in self.all() if key.created + self._activation <= self._now()]
        return known[-1] if known else self._all[0]
