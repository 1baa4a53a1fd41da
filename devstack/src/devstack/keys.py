"""The keys that sign access tokens of a stack: the first start makes one, `backend keys rotate` replaces it (`user.keys`)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from chassis.config import ACCESS_TOKEN_SECONDS
from mesh.envoy import JWKS_CACHE_SECONDS
from user.keys import KeyRing, KeyState

from devstack.layout import Layout

# By then every edge has fetched the key set again; twice the time that it keeps the set, in case a fetch fails.
ACTIVATION_SECONDS = 2 * JWKS_CACHE_SECONDS
# By then no edge accepts a key that is no longer published: what it had cached has expired and been fetched again.
EDGE_SECONDS = JWKS_CACHE_SECONDS + 1


def directory(layout: Layout) -> Path:
    """Where the private keys are."""
    return layout.secrets / "signing-keys"


def jwks_file(layout: Layout) -> Path:
    """Where the public keys are."""
    return layout.data_dir / "jwks" / "jwks.json"


def ring(layout: Layout) -> KeyRing:
    """The stack's."""
    return KeyRing(directory(layout), jwks_file(layout), ACTIVATION_SECONDS, ACCESS_TOKEN_SECONDS)


def ensure(layout: Layout) -> None:
    """See `KeyRing`."""
    ring(layout).ensure()


def rotate(layout: Layout) -> datetime:
    """See `KeyRing`."""
    return ring(layout).rotate()


def revoke(layout: Layout, kid: str | None) -> list[str]:
    """See `KeyRing`; raises KeyError when there is no such key."""
    return ring(layout).revoke(kid)


def retire(layout: Layout, now: float) -> list[str]:
    """See `KeyRing`."""
    return ring(layout).retire(now)


def states(layout: Layout) -> list[KeyState]:
    """See `KeyRing`."""
    return ring(layout).states()
