"""Logging in and changing the password: everything that looks at a password, behind the throttle."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import structlog
from chassis.cache import VersionedCache
from chassis.database import Database
from chassis.errors import ServiceError
from chassis.networks import network
from chassis.text import search_key
from contracts.user.v1.session_pb2 import Client

from user.domain.email_address import canonical
from user.domain.errors import InvalidCredentialsError, InvalidFieldError, SessionEndedError
from user.domain.user import User, new_credential_version
from user.repository import users
from user.repository.login_throttle import Attempt, LoginThrottle, Refused, too_many
from user.service import acts, events
from user.service.acts import Refusal
from user.service.devices import Devices
from user.service.password_rules import PasswordRules, normalized
from user.service.passwords import Passwords, needs_rehash
from user.service.sessions import Sessions, Tokens

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """What a login gives."""

    tokens: Tokens
    device_token: str


@dataclass(slots=True)
class _Guess:
    """What the audit events say of an attempt that fails."""

    action: str
    # The account that is meant, as the throttle names it.
    account: str
    user: User | None = None
    refusal: Refusal = Refusal.WRONG_PASSWORD


class Credentials:
    """Owns the use cases that need the password.

    Args:
        database: the user database.
        cache: user records for session checks; see `UserUseCases`.
        passwords: the hasher.
        rules: what a new password may be.
        throttle: of guesses.
        devices: who has logged in where.
        sessions: grants them.
        now: the clock, UTC.
    """

    def __init__(
        self,
        *,
        database: Database,
        cache: VersionedCache,
        passwords: Passwords,
        rules: PasswordRules,
        throttle: LoginThrottle,
        devices: Devices,
        sessions: Sessions,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._cache = cache
        self._passwords = passwords
        self._rules = rules
        self._throttle = throttle
        self._devices = devices
        self._sessions = sessions
        self._now = now

    async def log_in(self, email: str, password: str, client: Client) -> LoggedIn:
        """A session for whoever knows the password.

        Raises:
            InvalidCredentialsError: wrong address, wrong password or disabled user.
            ServiceError: TOO_MANY_ATTEMPTS while the next guess has to wait.
        """
        address = _address(email)
        # What is no address is counted, too, separately from addresses.
        account = _hash("address", address) if address else _hash("text", search_key(email))
        guess = _Guess("user.login_failed", account if address else "")
        async with self._attempt(await self._begin_login(account, address, client), guess):
            user, spelled = await self._verified(address, password, guess)
        tokens = await self._sessions.grant(user, client)
        if needs_rehash(user.password_hash):
            await self._rehash(user, spelled)
        return LoggedIn(tokens, self._devices.token(client.device_token, account, user.credential_version))

    async def change_password(self, user_id: UUID, session_id: str, current: str, new: str) -> User:
        """Set a new password and end all sessions but the caller's.

        Raises:
            SessionEndedError: the caller's session has ended.
            InvalidCredentialsError: the current password is wrong.
            InvalidFieldError: the new one is one that is refused.
            ServiceError: TOO_MANY_ATTEMPTS while the next guess has to wait.
        """
        await self._sessions.valid(str(user_id), session_id)
        # Whoever guesses here has a session. Guesses are counted for it, so that no stranger can hold up its owner.
        begun = await self._throttle.begin(
            _hash("user", str(user_id)), _hash("session", session_id), counts_for_account=False
        )
        guess = _Guess("user.password_change_failed", "")
        async with self._attempt(begun, guess):
            async with self._database.connection() as connection:
                guess.user = user = await users.get(connection, user_id)
            spelled = normalized(current)
            if spelled is None or not await self._passwords.verify(user.password_hash, spelled):
                raise InvalidCredentialsError
        new = self._rules.acceptable(new, field="/new_password", email=user.email, display_name=user.display_name)
        if new == spelled:
            raise InvalidFieldError("/new_password", "must not be the old one")
        new_hash = await self._passwords.hash(new)
        async with self._database.transaction() as connection:
            locked = await users.lock(connection, user_id)
            # Somebody else changed it while we were hashing: what we verified is no longer the password.
            if locked.credential_version != user.credential_version or not locked.is_active:
                raise SessionEndedError
            version = new_credential_version()
            await self._sessions.keep(session_id, locked, version)
            changed = replace(locked, password_hash=new_hash, credential_version=version, version=locked.version + 1)
            now = self._now()
            stored = await users.update(connection, changed, now)
            connection.record(user_id, events.password_changed(user_id, stored.version), now)
            acts.changed(connection, locked, stored, now, kept=session_id)
            await self._cache.raise_floor({str(stored.id): stored.version})
        await self._sessions.remove_ended(stored)
        return stored

    async def _begin_login(self, account: str, address: str | None, client: Client) -> Attempt | Refused:
        if (device := await self._known_device(account, address, client)) is not None:
            return await self._throttle.begin(account, _hash("device", device), counts_for_account=False)
        origin = _hash("network", network(client.address))
        begun = await self._throttle.begin(account, origin, counts_for_account=True)
        if isinstance(begun, Refused) and begun.by_account and await self._is_home(address, client.address):
            return await self._throttle.begin(account, origin, counts_for_account=False)
        return begun

    async def _known_device(self, account: str, address: str | None, client: Client) -> str | None:
        if not client.device_token or (user := await self._by_address(address)) is None:
            return None
        return self._devices.known(client.device_token, account, user.credential_version)

    async def _is_home(self, address: str | None, network_address: str) -> bool:
        """Whether the account has a live session at this address, which is then its owner's."""
        user = await self._by_address(address)
        return user is not None and await self._sessions.is_used_from(user, network_address)

    async def _by_address(self, address: str | None) -> User | None:
        # The query is made even without an address, so that the answer takes the same time.
        async with self._database.connection() as connection:
            return await users.by_email(connection, address or "")

    async def _verified(self, address: str | None, password: str, guess: _Guess) -> tuple[User, str]:
        guess.user = user = await self._by_address(address)
        spelled = normalized(password)
        known = user.password_hash if user is not None and spelled is not None else None
        matches = await self._passwords.verify(known, spelled or password)
        if user is None:
            guess.refusal = Refusal.UNKNOWN_ADDRESS
        elif matches and not user.is_active:
            guess.refusal = Refusal.DISABLED
        if user is None or spelled is None or not matches or not user.is_active:
            raise InvalidCredentialsError
        return user, spelled

    async def _rehash(self, user: User, password: str) -> None:
        try:
            new_hash = await self._passwords.hash(password)
            async with self._database.connection() as connection:
                await users.rehash(connection, user, new_hash)
        except ServiceError as error:
            # The login has succeeded, whatever fails here. The next one tries again.
            _log.info("a password could not be hashed again", user_id=str(user.id), error=str(error))

    @asynccontextmanager
    async def _attempt(self, begun: Attempt | Refused, guess: _Guess) -> AsyncIterator[None]:
        """Settle an attempt by what the block says of the password: only "wrong" counts. What fails is told."""
        if isinstance(begun, Refused):
            acts.refused(guess.action, guess.user, guess.account, Refusal.THROTTLED, self._now())
            raise too_many(begun)
        try:
            yield
        except InvalidCredentialsError:
            acts.refused(guess.action, guess.user, guess.account, guess.refusal, self._now())
            await self._throttle.wrong(begun)
            raise
        except BaseException:
            # This is done as well when the caller has gone or the deadline has passed.
            await self._came_to_nothing(begun)
            raise
        await self._throttle.right(begun)

    async def _came_to_nothing(self, attempt: Attempt) -> None:
        try:
            await self._throttle.came_to_nothing(attempt)
        except ServiceError as error:
            # The place that the attempt holds becomes free by itself after a while.
            _log.warning("an attempt could not be taken back", error=str(error))


def _address(email: str) -> str | None:
    try:
        return canonical(email)
    except InvalidFieldError:
        return None


def _hash(kind: str, text: str) -> str:
    # The kind is part of the name, so that an address is never confused with an id.
    return hashlib.sha256(f"{kind}\0{text}".encode()).hexdigest()[:32]
