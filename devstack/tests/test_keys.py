from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
from devstack.layout import Layout
from mesh.envoy import JWKS_CACHE_SECONDS

from devstack import keys

TOKEN_SECONDS = 300


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    keys.ensure(made)
    return made


def published(layout: Layout) -> list[str]:
    return [key["kid"] for key in json.loads(keys.jwks_file(layout).read_text(encoding="utf-8"))["keys"]]


def test_an_old_key_verifies_until_its_last_token_has_expired_and_no_longer(layout: Layout) -> None:
    (old,) = published(layout)
    begins = keys.rotate(layout).timestamp()
    _, new = published(layout)
    last_token_expires = begins + TOKEN_SECONDS
    assert keys.retire(layout, last_token_expires + 30) == []
    assert published(layout) == [old, new]
    assert keys.retire(layout, last_token_expires + 61) == [old]
    assert published(layout) == [new]
    assert [state.kid for state in keys.states(layout)] == [new]
    # The last one stays, however old it is.
    assert keys.retire(layout, last_token_expires + 1e9) == []
    assert published(layout) == [new]


def test_a_new_key_is_published_before_it_signs(layout: Layout) -> None:
    begins = keys.rotate(layout).timestamp()
    assert begins - time.time() > 2 * JWKS_CACHE_SECONDS - 5
    assert [state.state for state in keys.states(layout)] == ["signing", "published"]
    # In the same second.
    keys.rotate(layout)
    assert len(set(published(layout))) == 3


def test_private_keys_are_their_owners_only(layout: Layout) -> None:
    keys.rotate(layout)
    files = list(keys.directory(layout).glob("*.pem"))
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_revoked_key_is_gone_at_once_and_there_is_always_one_that_signs(layout: Layout) -> None:
    (stolen,) = published(layout)
    assert keys.revoke(layout, None) == [stolen]
    (successor,) = published(layout)
    assert successor != stolen
    assert [state.state for state in keys.states(layout)] == ["signing"]
    assert len(list(keys.directory(layout).glob("*.pem"))) == 1
    # One that is only published signs as soon as it is the only one.
    keys.rotate(layout)
    _, next_one = published(layout)
    assert keys.revoke(layout, successor) == [successor]
    assert [(state.kid, state.state) for state in keys.states(layout)] == [(next_one, "signing")]
    with pytest.raises(KeyError):
        keys.revoke(layout, stolen)
    assert published(layout) == [next_one]
