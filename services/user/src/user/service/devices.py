"""Device tokens, which show that somebody has logged in to an account on this device before. Nothing is stored of them."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from chassis import opaque

_ID_BYTES = 16
_MAC_BYTES = 32


class Devices:
    """Makes and reads device tokens: a random id, and a MAC over it, the account and its credential version.

    Whatever ends all sessions of a user changes that version, and makes their devices unknown as well.

    Args:
        secret: shared by all replicas of the service.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def known(self, token: str, account: str, credential_version: int) -> str | None:
        """The device's id, when the token is one that this account's login gave it."""
        raw = opaque.decode(token)
        if raw is None:
            return None
        device, mac = raw[:_ID_BYTES], raw[_ID_BYTES:]
        return device.hex() if hmac.compare_digest(mac, self._mac(device, account, credential_version)) else None

    def token(self, presented: str, account: str, credential_version: int) -> str:
        """The token for a device where somebody has just logged in: the presented one while it is good."""
        if self.known(presented, account, credential_version) is not None:
            return presented
        device = secrets.token_bytes(_ID_BYTES)
        return opaque.encode(device + self._mac(device, account, credential_version))

    def _mac(self, device: bytes, account: str, credential_version: int) -> bytes:
        return hmac.digest(
            self._secret, b"device\0" + device + f"{account}\0{credential_version}".encode(), hashlib.sha256
        )
