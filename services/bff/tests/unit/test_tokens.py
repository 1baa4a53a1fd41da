from __future__ import annotations

import os
import stat
from pathlib import Path

import jwt
import pytest
from bff.tokens import AccessTokens, SigningKeyError, load_keys
from chassis.errors import ServiceError
from chassis.ids import uuid7
from devstack.secrets import load_or_create, signing_keys

USER, SESSION = str(uuid7()), str(uuid7())


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def tokens(directory: Path, clock: Clock, audience: str = "api") -> AccessTokens:
    keys = load_keys(signing_keys(directory))
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


def test_after_a_rotation_the_new_key_signs_and_the_old_one_still_verifies(tmp_path: Path) -> None:
    clock = Clock()
    old = tokens(tmp_path, clock).issue(USER, SESSION, [])
    keys = tmp_path / "signing-keys"
    (first,) = keys.glob("*.pem")
    first.rename(keys / "00000000T000000.pem")
    other = tmp_path / "other"
    (newer,) = signing_keys(other).glob("*.pem")
    newer.rename(keys / "99999999T000000.pem")
    rotated = tokens(tmp_path, clock)
    new = rotated.issue(USER, SESSION, [])
    kids = [jwt.get_unverified_header(token)["kid"] for token in (old, new)]
    assert [key.kid for key in rotated.jwks.keys] == kids
    assert kids[0] != kids[1]
    assert rotated.verify(old).user_id == rotated.verify(new).user_id == USER


def test_no_key_and_a_wrong_key_do_not_start(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="no signing key"):
        load_keys(tmp_path)


def test_what_is_generated_is_for_its_owner_only_and_made_once(tmp_path: Path) -> None:
    first, again = load_or_create(tmp_path / "s"), load_or_create(tmp_path / "s")
    assert first == again
    signing_keys(tmp_path / "s")
    for path in (tmp_path / "s").rglob("*"):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        assert path.is_dir() or mode == 0o600, path
