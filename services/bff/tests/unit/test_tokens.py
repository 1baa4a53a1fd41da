from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import jwt
import msgspec
import pytest
from bff.tokens import AccessTokens, SigningKeyError, SigningKeys, load_keys
from chassis.errors import ServiceError
from chassis.ids import uuid7
from chassis.tokens import JwksFile, TokenVerifier
from cryptography.hazmat.primitives.asymmetric import ec
from devstack.secrets import load_or_create, private_pem, write_private

USER, SESSION = str(uuid7()), str(uuid7())


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


ACTIVATION = 30


def make_key(directory: Path, created: float) -> None:
    name = f"{datetime.fromtimestamp(created, UTC):%Y%m%dT%H%M%S}.pem"
    write_private(directory / name, private_pem(ec.generate_private_key(ec.SECP256R1())))


def tokens(directory: Path, clock: Clock, audience: str = "api") -> AccessTokens:
    directory.mkdir(exist_ok=True)
    if not any(directory.glob("*.pem")):
        make_key(directory, clock.now)
    keys = SigningKeys(directory, ACTIVATION, now=clock)
    return AccessTokens(keys, issuer="me", audience=audience, lifetime=300, new_id=uuid7, now=clock)


def test_a_token_is_valid_until_it_expires_also_from_the_cache(tmp_path: Path) -> None:
    clock = Clock()
    made = tokens(tmp_path, clock)
    token = made.issue(USER, SESSION, ["customer"])
    for _ in range(2):
        assert made.verify(token).user_id == USER
    clock.now += 299
    assert made.verify(token).session_id == SESSION
    clock.now += 1
    with pytest.raises(ServiceError):
        made.verify(token)


def test_another_audience_is_refused(tmp_path: Path) -> None:
    token = tokens(tmp_path, Clock(), audience="other").issue(USER, SESSION, [])
    with pytest.raises(ServiceError):
        tokens(tmp_path, Clock()).verify(token)


def test_a_new_key_is_published_before_it_signs_and_the_old_one_still_verifies(tmp_path: Path) -> None:
    clock = Clock()
    made = tokens(tmp_path, clock)

    def kid_of_a_new_token() -> str:
        return str(jwt.get_unverified_header(made.issue(USER, SESSION, []))["kid"])

    old = made.issue(USER, SESSION, [])
    first = kid_of_a_new_token()
    clock.now += 100
    make_key(tmp_path, clock.now)
    clock.now += 2
    assert kid_of_a_new_token() == first
    assert made.jwks().keys[0].kid == first
    assert len(made.jwks().keys) == 2
    clock.now += ACTIVATION
    assert kid_of_a_new_token() == made.jwks().keys[1].kid
    assert made.verify(old).user_id == made.verify(made.issue(USER, SESSION, [])).user_id == USER
    # Taken away, it verifies no more, from the cache neither.
    min(tmp_path.glob("*.pem")).unlink()
    clock.now += 2
    with pytest.raises(ServiceError):
        made.verify(old)


def test_no_key_and_a_wrong_key_do_not_start(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="no signing key"):
        load_keys(tmp_path)
    (tmp_path / "key.pem").touch()
    with pytest.raises(SigningKeyError, match="named by its time"):
        load_keys(tmp_path)


def test_a_key_that_goes_bad_later_leaves_the_others_in_force(tmp_path: Path) -> None:
    clock = Clock()
    made = tokens(tmp_path, clock)
    token = made.issue(USER, SESSION, [])
    (tmp_path / "20990101T000000.pem").write_text("not a key")
    clock.now += 2
    assert made.verify(token).user_id == USER
    assert made.verify(made.issue(USER, SESSION, [])).session_id == SESSION


class TestJwksFile:
    def test_a_replaced_file_is_read_and_a_broken_one_is_not(self, tmp_path: Path) -> None:
        clock = Clock()
        made = tokens(tmp_path / "keys", clock)
        path = tmp_path / "jwks.json"
        write_private(path, msgspec.json.encode(made.jwks()))
        verifier = TokenVerifier(JwksFile(path, clock), issuer="me", audience="api", now=clock)
        token = made.issue(USER, SESSION, ["customer"])
        assert verifier.verify(token).roles == ("customer",)
        clock.now += 2
        write_private(path, b"{")
        assert verifier.verify(token).user_id == USER
        clock.now += 2
        write_private(path, b'{"keys": []}')
        with pytest.raises(ServiceError):
            verifier.verify(token)

    def test_without_the_file_nothing_starts(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="jwks"):
            JwksFile(tmp_path / "jwks.json")


def test_what_is_generated_is_for_its_owner_only_and_made_once(tmp_path: Path) -> None:
    first, again = load_or_create(tmp_path / "s"), load_or_create(tmp_path / "s")
    assert first == again
    for path in (tmp_path / "s").rglob("*"):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        assert path.is_dir() or mode == 0o600, path
