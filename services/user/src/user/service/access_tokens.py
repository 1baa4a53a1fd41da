"""Issues access tokens; `chassis.tokens` verifies them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from uuid import UUID

import jwt
from chassis.tokens import ALGORITHM

from user.repository.signing_keys import SigningKeys


class AccessTokens:
    """Issues access tokens (JWT, RFC 7519).

    Args:
        keys: see `SigningKeys`.
        issuer, audience: the `iss` and `aud` claims.
        lifetime: seconds.
        new_id: makes `jti`s.
        now: Unix seconds.
    """

    def __init__(
        self,
        keys: SigningKeys,
        *,
        issuer: str,
        audience: str,
        lifetime: int,
        new_id: Callable[[], UUID],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime
        self._new_id = new_id
        self._now = now

    def issue(self, user_id: str, session_id: str, roles: Sequence[str]) -> str:
        """A signed token for this session."""
        now = int(self._now())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "sid": session_id,
            "roles": list(roles),
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(self._new_id()),
        }
        key = self._keys.signing()
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.kid})
