"""Races of everything that grants a session with everything that ends one.

    python tools/identity_races.py --data-dir .backend [--rounds 1000] [--seed 1] [--at-once 24] [--seconds 1500]

Every pair of {login, refresh, logout, password change, disable, enable, role change} at the same moment, so many rounds
each, over the PostgreSQL and Valkey of a running stack: the use cases as `user.main` wires them, and the BFF's own
check of what is kept afterwards. A round is wrong when a session is believed that a revocation came after. Several
accounts race at once; every pair has had as many rounds as every other whenever the time is up.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import random
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations_with_replacement
from pathlib import Path

from bff.sessions import SessionReader, is_valid
from chassis import context
from chassis.cache import VersionedCache
from chassis.context import RequestContext
from chassis.cursors import CursorSigner
from chassis.database import Database
from chassis.errors import ServiceError, as_service_error
from chassis.identity import Caller
from chassis.ids import uuid7
from chassis.private_files import private_pem, write_private
from chassis.valkey import PipelinedClient
from contracts.user.v1 import user_pb2
from contracts.user.v1.session_pb2 import Client
from cryptography.hazmat.primitives.asymmetric import ec
from devstack.layout import Layout
from devstack.secrets import Secrets, load_or_create
from user.domain.user import Role, User, UserStatus
from user.handlers.users import UserHandlers
from user.repository.login_throttle import LoginThrottle
from user.repository.sessions import SessionStore
from user.repository.signing_keys import SigningKeys
from user.service.access_tokens import AccessTokens
from user.service.credentials import Credentials
from user.service.devices import Devices
from user.service.password_rules import PasswordRules
from user.service.passwords import Passwords
from user.service.refresh_tokens import RefreshTokens, parse
from user.service.sessions import Sessions, Tokens
from user.service.users import UserUseCases

from devstack import postgres, services

GRACE = timedelta(seconds=10)
CROWD = 1_000_000
PASSWORD = "a long enough password"
BROWSER = Client(user_agent="browser", address="127.0.0.1")
_CONNECTIONS = 24
# What an operation may be refused with because of the other one.
_REFUSALS = {"INVALID_CREDENTIALS", "INVALID_REFRESH_TOKEN", "UNAUTHENTICATED", "TOO_MANY_ATTEMPTS"}


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class QuickPasswords(Passwords):
    """In the place of Argon2, which would take most of the time: it takes as long as a seeded dice says."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(1, 1)
        self._chance = chance

    async def hash(self, password: str) -> str:
        """See `Passwords`."""
        # Sometimes as long as everything else of a round takes: the other operation is over before this one goes on.
        await asyncio.sleep(self._chance.uniform(0, 0.04 if self._chance.random() < 0.3 else 0.003))
        return hashlib.sha256(password.encode()).hexdigest()

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """See `Passwords`."""
        return await self.hash(password) == password_hash


class Identity:
    """The use cases, wired as in `user.main`."""

    def __init__(self, database: Database, client: PipelinedClient, keys: Path, passwords: Passwords) -> None:
        self.clock = Clock()
        self.database = database
        self.client = client
        self.passwords = passwords
        self.store = SessionStore(client, now=self.clock, lifetime=timedelta(days=30), idle=timedelta(days=14))
        self.sessions = Sessions(
            database=database,
            store=self.store,
            access_tokens=AccessTokens(SigningKeys(keys, 0), issuer="me", audience="api", lifetime=300, new_id=uuid7),
            refresh_tokens=RefreshTokens("secret"),
            crowd=CROWD,
            grace=GRACE,
            now=self.clock,
            new_id=uuid7,
        )
        cache = VersionedCache(client, "user:", 300)
        rules = PasswordRules(["backend"])
        self.users = UserUseCases(
            database=database,
            cache=cache,
            passwords=passwords,
            rules=rules,
            sessions=self.sessions,
            now=self.clock,
            new_id=uuid7,
        )
        self.devices = Devices("secret")
        self.throttle = LoginThrottle(client)
        self.credentials = Credentials(
            database=database,
            cache=cache,
            passwords=passwords,
            rules=rules,
            throttle=self.throttle,
            devices=self.devices,
            sessions=self.sessions,
            now=self.clock,
        )
        self.handlers = UserHandlers(self.users, self.credentials, CursorSigner("secret"))
        self.reader = SessionReader(client)

    async def newcomer(self) -> User:
        """A user nobody else knows."""
        return await self.users.register(f"{uuid.uuid4()}@example.com", PASSWORD, "New Comer")

    async def granted(self, client: Client = BROWSER) -> tuple[User, Tokens]:
        """A new user with a session."""
        user = await self.newcomer()
        return user, await self.sessions.grant(user, client)

    async def believed(self, user: User, session_id: str) -> user_pb2.User | None:
        """The user's record, when the BFF would believe the session; exactly its check, its cache included."""
        try:
            check = await self.reader.read(session_id, str(user.id))
        except ServiceError as error:
            if error.reason != "UNAUTHENTICATED":
                raise
            return None
        record = check.user or await self.resolved(user)
        return record if record.status == user_pb2.USER_STATUS_ACTIVE and is_valid(check.session, record) else None

    async def resolved(self, user: User) -> user_pb2.User:
        """As the BFF asks for it, which fills the cache."""
        caller = Caller(str(user.id), str(uuid.uuid4()), ())
        with context.serving(RequestContext("identity-races", caller=caller)):
            return await self.handlers.ResolveUser(user_pb2.ResolveUserRequest(), None)


def session_of(tokens: Tokens) -> str:
    """The id of the session that a refresh token belongs to."""
    parsed = parse(tokens.refresh_token)
    if parsed is None:
        raise ValueError("not a refresh token")
    return parsed.session_id


@asynccontextmanager
async def opened(layout: Layout, secrets: Secrets, passwords: Passwords) -> AsyncIterator[Identity]:
    """The use cases over the servers of a running stack, with connections for two dozen callers at once."""
    own = postgres.database_of("user", secrets)
    database = Database(own.url(layout), min_size=1, max_size=_CONNECTIONS, service="test")
    client = PipelinedClient(services.valkey_url(layout, secrets, "user"))
    with tempfile.TemporaryDirectory() as keys:
        write_private(Path(keys) / "20260101T000000.pem", private_pem(ec.generate_private_key(ec.SECP256R1())))
        await database.open()
        try:
            yield Identity(database, client, Path(keys), passwords)
        finally:
            await client.close()
            await database.close()
            passwords.close()


@dataclass(frozen=True, slots=True)
class Scene:
    """What a round begins with: a user with two sessions; the second is the one that changes the password."""

    identity: Identity
    user: User
    first: Tokens
    second: Tokens

    async def login(self) -> Tokens | None:
        """By the password that was the right one at the beginning."""
        return (await self.identity.credentials.log_in(self.user.email, PASSWORD, BROWSER)).tokens

    async def refresh(self) -> Tokens | None:
        """Of the first session."""
        return await self.identity.sessions.refresh(self.first.refresh_token, BROWSER)

    async def logout(self) -> None:
        """Of the first session."""
        await self.identity.sessions.end_own(str(self.user.id), session_of(self.first))

    async def password(self) -> None:
        """By the second session."""
        new = f"another password {uuid.uuid4()}"
        await self.identity.credentials.change_password(self.user.id, session_of(self.second), PASSWORD, new)

    async def disable(self) -> None:
        """By an administrator."""
        await self.identity.users.administer(self.user.id, None, UserStatus.DISABLED, None)

    async def enable(self) -> None:
        """By an administrator."""
        await self.identity.users.administer(self.user.id, None, UserStatus.ACTIVE, None)

    async def role(self) -> None:
        """By an administrator."""
        await self.identity.users.administer(self.user.id, (Role.CUSTOMER, Role.SUPPORT), None, None)


OPERATIONS = ("login", "refresh", "logout", "password", "disable", "enable", "role")
PAIRS = tuple(combinations_with_replacement(OPERATIONS, 2))


async def race(identity: Identity, pair: tuple[str, str], chance: random.Random) -> list[str]:
    """One round; what is wrong afterwards."""
    user = await identity.newcomer()
    scene = Scene(
        identity, user, await identity.sessions.grant(user, BROWSER), await identity.sessions.grant(user, BROWSER)
    )
    if "enable" in pair:
        await scene.disable()
    if chance.random() < 0.5:
        await identity.resolved(user)

    async def play(name: str) -> Tokens | None:
        await asyncio.sleep(chance.uniform(0, 0.004))
        operation: Callable[[], Awaitable[Tokens | None]] = getattr(scene, name)
        return await operation()

    reading = asyncio.create_task(_read_all_along(identity, user, chance))
    outcomes = await asyncio.gather(*map(play, pair), return_exceptions=True)
    await reading
    done = [name for name, outcome in zip(pair, outcomes, strict=True) if not isinstance(outcome, BaseException)]
    problems = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            known = as_service_error(outcome)
            if known is None or known.reason not in _REFUSALS:
                problems.append(f"unexpected: {outcome!r}")
    logins = [o for n, o in zip(pair, outcomes, strict=True) if n == "login" and isinstance(o, Tokens)]
    return problems + await _wrong(scene, done, logins)


async def _wrong(scene: Scene, done: list[str], logins: list[Tokens]) -> list[str]:
    identity, user = scene.identity, scene.user
    final = await identity.users.get(user.id)
    ended: list[tuple[str, Tokens]] = []
    if "logout" in done:
        ended.append(("the session that logged out", scene.first))
    if "password" in done:
        ended.append(("another session than the one that changed the password", scene.first))
        ended += [("a login by the old password", login) for login in logins]
    if "disable" in done or not final.is_active:
        ended += [("a session of before", scene.first), ("the other session of before", scene.second)]
    if not final.is_active:
        ended += [("a login of a disabled user", login) for login in logins]
    problems = []
    for what, tokens in ended:
        if await identity.believed(user, session_of(tokens)):
            problems.append(f"{what} is believed")
        try:
            await identity.sessions.refresh(tokens.refresh_token, BROWSER)
            problems.append(f"{what} is refreshed")
        except Exception as error:
            known = as_service_error(error)
            if known is None or known.reason != "INVALID_REFRESH_TOKEN":
                problems.append(f"{what}: {error!r}")
        if await identity.believed(user, session_of(tokens)):
            problems.append(f"{what} came back")
    kept = await identity.believed(user, session_of(scene.second))
    if kept is not None and set(kept.roles) != set(final.roles):
        problems.append("the roles of before are believed")
    if kept is None and final.is_active and not {"disable", "enable"} & set(done) and final.version > 0:
        problems.append("a session that nothing ended has ended")
    return problems


async def _read_all_along(identity: Identity, user: User, chance: random.Random) -> None:
    """The BFF's cache fills, whose copies must not outlive the change."""
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0, 0.003))
        await identity.resolved(user)


@dataclass(slots=True)
class Found:
    """What some rounds have shown: how many there were, and what was wrong, with the seed that shows it again."""

    rounds: int = 0
    problems: list[str] = field(default_factory=list)


async def races(identity: Identity, rounds: int, seed: int, *, at_once: int = 8, seconds: float = math.inf) -> Found:
    """So many rounds of every pair, or as many as can be begun in some seconds."""
    found = Found()
    give_up = asyncio.get_running_loop().time() + seconds

    def turns() -> Iterator[tuple[int, tuple[str, str]]]:
        for number in range(rounds):
            if asyncio.get_running_loop().time() > give_up:
                return
            for pair in PAIRS:
                yield number, pair

    ahead = turns()

    async def racer() -> None:
        for number, pair in ahead:
            problems = await race(identity, pair, random.Random(f"{seed} {pair} {number}"))
            found.rounds += 1
            found.problems += [f"{' + '.join(pair)}, round {number} of seed {seed}: {problem}" for problem in problems]

    await asyncio.gather(*(racer() for _ in range(at_once)))
    return found


async def _main(layout: Layout, rounds: int, seed: int, at_once: int, seconds: float) -> int:
    async with opened(layout, load_or_create(layout.secrets), QuickPasswords(random.Random(seed))) as identity:
        found = await races(identity, rounds, seed, at_once=at_once, seconds=seconds)
    for problem in found.problems:
        print(problem)
    each = found.rounds // len(PAIRS)
    print(f"{len(PAIRS)} pairs, {each} rounds each, {found.rounds} in all, seed {seed}: {len(found.problems)} wrong")
    return 1 if found.problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1000, help="of each pair")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=24, help="accounts that race at the same time")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no further rounds after that time")
    a = parser.parse_args()
    sys.exit(asyncio.run(_main(Layout(a.data_dir.resolve()), a.rounds, a.seed, a.at_once, a.seconds)))
