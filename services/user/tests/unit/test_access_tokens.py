from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import jwt
import msgspec
import pytest
from chassis.errors import ServiceError
from chassis.ids import uuid7
from chassis.private_files import private_pem, write_private
from chassis.tokens import JwksFile, TokenVerifier
from cryptography.hazmat.primitives.asymmetric import ec
from devstack.secrets import load_or_create
from user.repository.signing_keys import SigningKeyError, SigningKeys, load_keys
from user.service.access_tokens import AccessTokens

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


class Issuer:
    """Issues and verifies, as the User service and the others do: over the public file that `backend` writes."""

    def __init__(self, directory: Path, clock: Clock, audience: str, lifetime: int) -> None:
        self.directory, self.clock = directory, clock
        self.keys = SigningKeys(directory, ACTIVATION, now=clock)
        self.issuer = AccessTokens(
            self.keys, issuer="me", audience=audience, lifetime=lifetime, new_id=uuid7, now=clock
        )
        self.publish()
        self.verifier = TokenVerifier(
            JwksFile(self.file, clock), issuer="me", audience=audience, lifetime=300, now=clock
        )
        self.issue, self.verify = self.issuer.issue, self.verifier.verify

    @property
    def file(self) -> Path:
        return self.directory / "jwks.json"

    def publish(self) -> None:
        published = [msgspec.to_builtins(key.jwk) for key in load_keys(self.directory)]
        write_private(self.file, msgspec.json.encode({"keys": published}))


def tokens(directory: Path, clock: Clock, audience: str = "api", lifetime: int = 300) -> Issuer:
    directory.mkdir(exist_ok=True)
    if not any(directory.glob("*.pem")):
        make_key(directory, clock.now)
    return Issuer(directory, clock, audience, lifetime)


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


def test_a_token_has_one_spelling(tmp_path: Path) -> None:
    """Or one good token would be many: to whoever lists the revoked, and to the verifier's memory."""
    issuer = tokens(tmp_path, Clock())
    token = issuer.issue(USER, SESSION, ["customer"])
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [token[:-1] + last for last in alphabet if last != token[-1]]
    others += [token + extra for extra in ("=", "==", "!", " ", "A", "AAAA", ".", "\n")]
    for other in others:
        with pytest.raises(ServiceError, match="UNAUTHENTICATED"):
            issuer.verify(other)
    assert issuer.verify(token).session_id == SESSION


def test_another_audience_is_refused(tmp_path: Path) -> None:
    token = tokens(tmp_path, Clock(), audience="other").issue(USER, SESSION, [])
    with pytest.raises(ServiceError):
        tokens(tmp_path, Clock()).verify(token)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"exp": 10 * 365 * 86400}, "lives for ten years"),
        ({"exp": 306}, "a little longer than the issuer gives"),
        ({"iat": -20, "exp": 290}, "backdated"),
        ({"iat": 86400, "exp": 86400 + 300}, "begins tomorrow"),
        ({"iat": None}, "does not say since when"),
        ({"exp": float("nan")}, "expires never"),
        ({"exp": float("inf")}, "expires never"),
    ],
)
def test_a_token_that_lives_longer_than_its_issuer_lets_it_is_refused(
    tmp_path: Path, changed: dict[str, float | None], why: str
) -> None:
    clock = Clock()
    made = tokens(tmp_path, clock)
    claims = jwt.decode(made.issue(USER, SESSION, ["customer"]), options={"verify_signature": False})
    key = made.keys.signing()

    def signed(**replaced: float | None) -> str:
        times = {name: None if v is None else int(clock.now) + v for name, v in replaced.items()}
        body = {name: value for name, value in (claims | times).items() if value is not None}
        return jwt.encode(body, key.private, algorithm="ES256", headers={"kid": key.kid})

    assert made.verify(signed(exp=305)).user_id == USER
    with pytest.raises(ServiceError):
        made.verify(signed(**changed))


def test_a_new_key_is_published_before_it_signs_and_the_old_one_still_verifies(tmp_path: Path) -> None:
    clock = Clock()
    made = tokens(tmp_path, clock)

    def kid_of_a_new_token() -> str:
        return str(jwt.get_unverified_header(made.issue(USER, SESSION, []))["kid"])

    old = made.issue(USER, SESSION, [])
    first = kid_of_a_new_token()
    clock.now += 100
    make_key(tmp_path, clock.now)
    made.publish()
    clock.now += 2
    assert kid_of_a_new_token() == first
    assert [key.kid for key in made.keys.all()] == [first, made.keys.all()[1].kid]
    clock.now += ACTIVATION
    assert kid_of_a_new_token() == made.keys.all()[1].kid
    assert made.verify(old).user_id == made.verify(made.issue(USER, SESSION, [])).user_id == USER
    # Taken away, it verifies no more, from the cache neither.
    min(tmp_path.glob("*.pem")).unlink()
    made.publish()
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
    (tmp_path / "20990101T000000.pem").write_text("not a key", encoding="utf-8")
    clock.now += 2
    assert made.verify(token).user_id == USER
    assert made.verify(made.issue(USER, SESSION, [])).session_id == SESSION


class TestJwksFile:
    def test_a_replaced_file_is_read_and_a_broken_one_is_not(self, tmp_path: Path) -> None:
        clock = Clock()
        made = tokens(tmp_path / "keys", clock)
        path = tmp_path / "jwks.json"
        write_private(path, made.file.read_bytes())
        verifier = TokenVerifier(JwksFile(path, clock), issuer="me", audience="api", lifetime=300, now=clock)
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
        mode = stat.S_IMODE(path.stat().st_mode)
        assert path.is_dir() or mode == 0o600, path
