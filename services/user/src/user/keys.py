"""The key ring that signs access tokens: made at first, rotated, revoked, retired; `python -m user.keys ensure|rotate|revoke|show`.

    SIGNING_KEYS_DIR/<time>.pem    private, the User service's
    JWKS_FILE                      public, what everybody verifies with

A new key is published at once, but it begins to sign only when every verifier is certain to have read it. An old key
goes on verifying until the last token that it signed has expired; then it is removed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
from chassis.audit import acts, lines
from chassis.config import ConfigurationError, load
from chassis.private_files import private_pem, write_private
from cryptography.hazmat.primitives.asymmetric import ec

from user.repository.signing_keys import SigningKey, SigningKeyError, SigningKeys, load_keys
from user.settings import KeySettings

# For clocks that differ and for requests that are still being served.
_MARGIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class KeyState:
    """A signing key as the command line shows it."""

    kid: str
    created: datetime
    # "published" signs no tokens yet, "signing" signs the new ones, "verifying" has signed tokens that are still valid.
    state: str


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The private keys of a directory, and the file of their public halves.

    Attributes:
        directory: of the private keys.
        jwks_file: of the public ones, as a JSON Web Key Set.
        activation: seconds from a key's making until it signs: by then every verifier has read it.
        token_seconds: how long a token is valid.
    """

    directory: Path
    jwks_file: Path
    activation: float
    token_seconds: float

    @classmethod
    def configured(cls, settings: KeySettings) -> KeyRing:
        """The one that the service's settings describe."""
        return cls(
            settings.signing_keys_dir,
            settings.jwks_file,
            settings.signing_key_activation_seconds,
            settings.access_token_seconds,
        )

    def ensure(self) -> None:
        """Make the first key when there is none, and write the public key set."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not any(self.directory.glob("*.pem")):
                self._make()
            self._publish()

    def rotate(self) -> datetime:
        """Make a new key and publish it at once; returns the time at which it begins to sign."""
        with self._locked():
            # A file is named by the second in which its key was made, so no two keys may be made in the same second.
            created = max(time.time(), load_keys(self.directory)[-1].created + 1)
            self._make(datetime.fromtimestamp(created, UTC))
            self._publish()
        return datetime.fromtimestamp(created, UTC) + timedelta(seconds=self.activation)

    def revoke(self, kid: str | None) -> list[str]:
        """Remove a key that somebody else may have, and with it every token that it has signed; returns its id.

        Services refuse its tokens within a second. When no other key would be left, a new one is made and signs at once;
        edges accept its tokens when they have fetched the key set again.

        Args:
            kid: which key; None for the one that signs now.

        Raises:
            KeyError: there is no such key.
        """
        with self._locked():
            known = {key.kid: key for key in load_keys(self.directory)}
            gone = known[kid or SigningKeys(self.directory, self.activation).signing().kid]
            if len(known) == 1:
                # A file is named by the second in which its key was made, so no two keys may be made in the same second.
                self._make(datetime.fromtimestamp(max(time.time(), gone.created + 1), UTC))
            self._path(gone).unlink()
            self._publish()
        return [gone.kid]

    def retire(self, now: float) -> list[str]:
        """Remove every key whose last token has expired, so that stealing it is of no use; returns their ids."""
        with self._locked():
            # Its successor has been signing for longer than a token is valid.
            gone = [
                key
                for key, successor in pairwise(load_keys(self.directory))
                if successor.created + self.activation + self.token_seconds + _MARGIN_SECONDS < now
            ]
            for key in gone:
                self._path(key).unlink()
            if gone:
                self._publish()
        return [key.kid for key in gone]

    def states(self) -> list[KeyState]:
        """Every key, oldest first."""
        keys = SigningKeys(self.directory, self.activation)
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
    def _locked(self) -> Iterator[None]:
        # A key may be retired while somebody rotates or revokes one.
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _path(self, key: SigningKey) -> Path:
        return self.directory / f"{datetime.fromtimestamp(key.created, UTC):%Y%m%dT%H%M%S}.pem"

    def _make(self, created: datetime | None = None) -> None:
        name = f"{created or datetime.now(UTC):%Y%m%dT%H%M%S}.pem"
        write_private(self.directory / name, private_pem(ec.generate_private_key(ec.SECP256R1())))

    def _publish(self) -> None:
        self.jwks_file.parent.mkdir(exist_ok=True)
        keys = [msgspec.to_builtins(key.jwk) for key in load_keys(self.directory)]
        write_private(self.jwks_file, json.dumps({"keys": keys}).encode())


def main() -> None:
    """Do what the arguments say to the keys that the environment names, and print it; what has expired goes first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ensure", "rotate", "revoke", "show"))
    parser.add_argument("kid", nargs="?", help="of the key to revoke; the one that signs, when left out")
    arguments = parser.parse_args()
    try:
        ring = KeyRing.configured(load(KeySettings))
        ring.ensure()
        for kid in ring.retire(time.time()):
            print(f"{kid} has verified its last token and is removed")
            _tell("key.retired", kid)
        if arguments.what == "rotate":
            begins = ring.rotate()
            print(f"the new key signs from {begins:%Y-%m-%d %H:%M:%S}Z")
            _tell("key.rotated", ring.states()[-1].kid, {"signs_from": begins.isoformat()})
        if arguments.what == "revoke":
            for kid in ring.revoke(arguments.kid):
                print(f"{kid} is revoked")
                _tell("key.revoked", kid)
    except KeyError:
        sys.exit(f"there is no key {arguments.kid}")
    except (ConfigurationError, SigningKeyError, OSError) as error:
        sys.exit(str(error))
    for state in ring.states():
        print(f"{state.state:<10} {state.kid}  made {state.created:%Y-%m-%d %H:%M:%S}Z")


def _tell(action: str, kid: str, after: acts.Values = acts.NOTHING) -> None:
    """The line of the audit trail (docs/audit.md), on standard output, which is collected."""
    act = acts.act(action, f"key/{kid}", datetime.now(UTC), actor=acts.operator(), after=after)
    print(lines.as_json(act, "user"))


if __name__ == "__main__":
    main()
