"""The keys that sign access tokens: made on first start, rotated by `backend keys rotate`.

    secrets/signing-keys/<time>.pem    private, the User service's
    jwks/jwks.json                     public, what everybody verifies with

A new key is published at once and signs only when every verifier has surely read it; an old one verifies until the
last token that it signed has expired, and is removed then.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
from chassis.config import ACCESS_TOKEN_SECONDS
from cryptography.hazmat.primitives.asymmetric import ec
from user.repository.signing_keys import SigningKey, SigningKeys, load_keys

from devstack.envoy import JWKS_CACHE_SECONDS
from devstack.layout import Layout
from devstack.secrets import private_pem, write_private

# Every edge has fetched the key set once more, and once again for good measure.
ACTIVATION_SECONDS = 2 * JWKS_CACHE_SECONDS
# After this an edge has no key that is no longer published: its cache's time, and the fetch's own.
EDGE_SECONDS = JWKS_CACHE_SECONDS + 1
# The life of a token, and a minute for clocks and requests under way.
_RETIREMENT_SECONDS = ACCESS_TOKEN_SECONDS + 60


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as people want to see it."""

    kid: str
    created: datetime
    # published, signing or verifying
    state: str


def directory(layout: Layout) -> Path:
    """Where the private keys are."""
    return layout.secrets / "signing-keys"


def jwks_file(layout: Layout) -> Path:
    """Where the public keys are."""
    return layout.data_dir / "jwks" / "jwks.json"


def ensure(layout: Layout) -> None:
    """At least one key, and the public set beside it."""
    directory(layout).mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(layout):
        if not any(directory(layout).glob("*.pem")):
            _make(layout)
        _publish(layout)


def rotate(layout: Layout) -> datetime:
    """A new key, published at once; when it begins to sign."""
    with _locked(layout):
        # Two of the same second would have one name.
        created = max(time.time(), load_keys(directory(layout))[-1].created + 1)
        _make(layout, datetime.fromtimestamp(created, UTC))
        _publish(layout)
    return datetime.fromtimestamp(created, UTC) + timedelta(seconds=ACTIVATION_SECONDS)


def revoke(layout: Layout, kid: str | None) -> list[str]:
    """End a key that is no longer only ours, and every token it has signed; the key that signs, without a `kid`.

    Services refuse its tokens within a second. When none that is published would be left, a new one signs at once; the
    edges know it when they have fetched the key set again.

    Raises:
        KeyError: there is no such key.
    """
    with _locked(layout):
        known = {key.kid: key for key in load_keys(directory(layout))}
        gone = known[kid or SigningKeys(directory(layout), ACTIVATION_SECONDS).signing().kid]
        if len(known) == 1:
            # Its file is named by its time, and two of the same second would have one name.
            _make(layout, datetime.fromtimestamp(max(time.time(), gone.created + 1), UTC))
        _path(layout, gone).unlink()
        _publish(layout)
    return [gone.kid]


def retire(layout: Layout, now: float) -> list[str]:
    """Remove every key whose last token has expired, so that a stolen old key is of no use; their ids."""
    with _locked(layout):
        # Its successor has signed for as long as a token lives.
        gone = [
            key
            for key, successor in pairwise(load_keys(directory(layout)))
            if successor.created + ACTIVATION_SECONDS + _RETIREMENT_SECONDS < now
        ]
        for key in gone:
            _path(layout, key).unlink()
        if gone:
            _publish(layout)
    return [key.kid for key in gone]


def states(layout: Layout) -> list[KeyState]:
    """Every key, oldest first."""
    keys = SigningKeys(directory(layout), ACTIVATION_SECONDS)
    signing = keys.signing()
    return [
        KeyState(
            key.kid,
            datetime.fromtimestamp(key.created, UTC),
            "signing" if key.kid == signing.kid else "published" if key.created > signing.created else "verifying",
        )
        for key in keys.all()
    ]


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    # The supervisor retires, a person rotates.
    descriptor = os.open(directory(layout), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _path(layout: Layout, key: SigningKey) -> Path:
    return directory(layout) / f"{datetime.fromtimestamp(key.created, UTC):%Y%m%dT%H%M%S}.pem"


def _make(layout: Layout, created: datetime | None = None) -> None:
    name = f"{created or datetime.now(UTC):%Y%m%dT%H%M%S}.pem"
    write_private(directory(layout) / name, private_pem(ec.generate_private_key(ec.SECP256R1())))


def _publish(layout: Layout) -> None:
    jwks_file(layout).parent.mkdir(exist_ok=True)
    keys = [msgspec.to_builtins(key.jwk) for key in load_keys(directory(layout))]
    write_private(jwks_file(layout), json.dumps({"keys": keys}).encode())
