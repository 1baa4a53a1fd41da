"""The keys that sign access tokens: the first start makes one, `backend keys rotate` replaces it.

    secrets/signing-keys/<time>.pem    private, the User service's
    jwks/jwks.json                     public, what everybody verifies with

A new key is published at once, but it begins to sign only when every verifier is certain to have read it. An old key
goes on verifying until the last token that it signed has expired; then it is removed.
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
from chassis.private_files import private_pem, write_private
from cryptography.hazmat.primitives.asymmetric import ec
from mesh.envoy import JWKS_CACHE_SECONDS
from user.repository.signing_keys import SigningKey, SigningKeys, load_keys

from devstack.layout import Layout

# By then every edge has fetched the key set again; twice the time that it keeps the set, in case a fetch fails.
ACTIVATION_SECONDS = 2 * JWKS_CACHE_SECONDS
# By then no edge accepts a key that is no longer published: what it had cached has expired and been fetched again.
EDGE_SECONDS = JWKS_CACHE_SECONDS + 1
# How long a token is valid, and a minute more for clocks that differ and for requests that are still being served.
_RETIREMENT_SECONDS = ACCESS_TOKEN_SECONDS + 60


@dataclass(frozen=True, slots=True)
class KeyState:
    """A signing key as the command line shows it."""

    kid: str
    created: datetime
    # "published" signs no tokens yet, "signing" signs the new ones, "verifying" has signed tokens that are still valid.
    state: str


def directory(layout: Layout) -> Path:
    """Where the private keys are."""
    return layout.secrets / "signing-keys"


def jwks_file(layout: Layout) -> Path:
    """Where the public keys are."""
    return layout.data_dir / "jwks" / "jwks.json"


def ensure(layout: Layout) -> None:
    """Make the first key when there is none, and write the public key set."""
    directory(layout).mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(layout):
        if not any(directory(layout).glob("*.pem")):
            _make(layout)
        _publish(layout)


def rotate(layout: Layout) -> datetime:
    """Make a new key and publish it at once; returns the time at which it begins to sign."""
    with _locked(layout):
        # A file is named by the second in which its key was made, so no two keys may be made in the same second.
        created = max(time.time(), load_keys(directory(layout))[-1].created + 1)
        _make(layout, datetime.fromtimestamp(created, UTC))
        _publish(layout)
    return datetime.fromtimestamp(created, UTC) + timedelta(seconds=ACTIVATION_SECONDS)


def revoke(layout: Layout, kid: str | None) -> list[str]:
    """Remove a key that somebody else may have, and with it every token that it has signed; returns its id.

    Services refuse its tokens within a second. When no other key would be left, a new one is made and signs at once;
    edges accept its tokens when they have fetched the key set again.

    Args:
        layout: whose keys.
        kid: which key; None for the one that signs now.

    Raises:
        KeyError: there is no such key.
    """
    with _locked(layout):
        known = {key.kid: key for key in load_keys(directory(layout))}
        gone = known[kid or SigningKeys(directory(layout), ACTIVATION_SECONDS).signing().kid]
        if len(known) == 1:
            # A file is named by the second in which its key was made, so no two keys may be made in the same second.
            _make(layout, datetime.fromtimestamp(max(time.time(), gone.created + 1), UTC))
        _path(layout, gone).unlink()
        _publish(layout)
    return [gone.kid]


def retire(layout: Layout, now: float) -> list[str]:
    """Remove every key whose last token has expired, so that stealing it is of no use; returns their ids."""
    with _locked(layout):
        # Its successor has been signing for longer than a token is valid.
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
    # The supervisor may retire a key while somebody rotates or revokes one.
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
