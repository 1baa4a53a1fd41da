"""What is guessed first is refused, and by which rule is said; every spelling of a password is one."""

from __future__ import annotations

import random
import time
import unicodedata
import uuid
from collections.abc import Callable

import pytest
from argon2 import PasswordHasher, extract_parameters
from user.domain.choices import choices
from user.domain.errors import InvalidFieldError
from user.repository.common_passwords import common_passwords
from user.service.password_rules import PasswordRules, normalized
from user.service.passwords import Passwords

RULES = PasswordRules(["Backend", "Example Shop"])


def verdict(password: str, email: str = "ada.lovelace@example.com", display_name: str = "Ada King Lovelace") -> str:
    try:
        assert RULES.acceptable(password, field="/password", email=email, display_name=display_name)
    except InvalidFieldError as error:
        ((pointer, detail),) = error.violations
        assert pointer == "/password"
        return detail
    return "accepted"


@pytest.mark.parametrize("password", ["1234567890", "qwertyuiop", "PassWord123", "1q2w3e4r5t", "\uff11234567890"])
def test_a_common_password_is_refused(password: str) -> None:
    assert verdict(password) == "is one of the most common passwords"


def test_the_ten_thousand_most_common_are_known() -> None:
    assert len(common_passwords()) > 19_000


@pytest.mark.parametrize(
    "password",
    [
        "Password123!", "P@$$w0rd2024!", "$unshine2024", "Welcome2026!!", "!!!letmein!!!", "iloveyou.1990", "Passwort2026!",
        "adm1n1strator!", "monkey-7391846", "Sunshine-1234567890", "2026football",
    ],
)  # fmt: skip
def test_a_common_password_with_the_usual_decoration_is_refused(password: str) -> None:
    assert verdict(password) == "must be more than a common password with something added"


@pytest.mark.parametrize(
    "password",
    [
        "trialtrial", "trial trial", "trial1trial2", " " * 10, "\u3000" * 10, "zzzzzzzzzzzzz", "abcabcabcabc", "abcabcabca",
        "aabbccddee", "aaabbbcccc", "bcdefghijk", "ZYXWVUTSRQ", "2468101214", "9876543210!", "!@#$%^&*()", "qwertzuiop1",
        "poiuytrewqlkjhgfdsa", "q1w2e3r4t5y6x", "a1b2c3d4e5f6", "\u0430\u0431\u0432\u0433\u0434\u0435\u0436\u0437\u0438\u0439",
        "football!football!", "trial" * 25,
    ],
)  # fmt: skip
def test_a_repetition_or_a_sequence_is_refused(password: str) -> None:
    assert verdict(password) == "must be more than a repetition or a sequence"


@pytest.mark.parametrize(
    "password",
    [
        "ada.lovelace@example.com", "Ada.Lovelace1815", "ADALOVELACE!!", "AdaKingLovelace", "Lovelace King Ada 1",
        "example.com-99", "lovelace-1815", "L0velace-1815", "the-lovelace",
    ],
)  # fmt: skip
def test_the_address_and_the_name_are_refused(password: str) -> None:
    assert verdict(password) == "must be more than the address or the name"


@pytest.mark.parametrize("password", ["backend-17-03", "B@ckend-17-03", "my-backend!", "shop-17-03-x", "17backend03?"])
def test_the_services_own_name_is_refused(password: str) -> None:
    assert verdict(password, "x@y.test", "Somebody Else") == "must be more than the name of the service"


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery", "incorrect donkey socket", "lovelace loves long trains", "monkey-73918465", "a backend for cats",
        "P\u00e4ssw\u00f6rter sind lang", "kq7-Zu3!vR", "\u4e00\u4e8c\u5c71\u6c34\u706b\u6728\u91d1\u571f\u65e5\u6708", "password or battery",
    ],
)  # fmt: skip
def test_what_took_choosing_is_accepted(password: str) -> None:
    assert verdict(password) == "accepted"


def test_generated_passwords_are_accepted() -> None:
    chance = random.Random(1)
    hexadecimal = ["".join(chance.choices("0123456789abcdef", k=16)) for _ in range(500)]
    assert [password for password in hexadecimal if verdict(password) != "accepted"] == []
    assert {verdict(f"pw-{uuid.UUID(int=chance.getrandbits(128))}") for _ in range(500)} == {"accepted"}


def test_length_is_that_of_the_spelling() -> None:
    assert verdict("a\u0301" * 5 + "bcde") == "must have at least 10 characters"


def test_choices_are_counted() -> None:
    # A sequence is one, a repetition none.
    assert choices("trialtrial", 99) == 5
    assert choices("abcd-4321-xyxyxyxy", 99) == 6
    assert choices("correct horse", 99) == 13
    assert choices("correct horse", 4) == 4
    assert choices("", 4) == 0


@pytest.mark.parametrize(
    "password",
    [
        "1" * 127 + "x", "x" + "!" * 127, "\ufdfa" * 128, "".join(random.Random(1).choices("01", k=127)) + "x", "ab" * 64,
        "a" + "".join(random.Random(2).choices("@4310$5!7", k=127)), "".join(map(chr, range(0x4E00, 0x4E80))),
        "".join(map(chr, range(0x4E00, 0x5200, 8))), "a1" * 40 + "1a" * 24,
    ],
)  # fmt: skip
async def test_a_hostile_password_is_judged_at_once(password: str) -> None:
    hashing = Passwords(workers=1, queue=1)
    hasher = PasswordHasher.from_parameters(extract_parameters(await hashing.hash(password)))
    hashing.close()

    def judge() -> None:
        verdict(password, "a" * 60 + "@" + "b." * 90 + "test", " ".join(["abcde", "bcdef"] * 8))

    # A fifth of what its hash will cost, both as long as they take where nothing else runs.
    assert least_seconds(judge) < least_seconds(lambda: hasher.hash(password)) / 5


def least_seconds(work: Callable[[], object]) -> float:
    """The processor's time that it takes at best."""
    found = []
    for _ in range(5):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return min(found)


def test_a_password_has_one_spelling_whichever_keyboard_it_was_typed_on() -> None:
    composed = "P\u00e4\u00dfw\u00f6rter sind lang"
    assert normalized(unicodedata.normalize("NFD", composed)) == composed
    assert normalized("so\u00a0lang\u3000wie das") == "so lang wie das"
    # Case and width are the owner's own.
    assert normalized("\uff21BC") == "\uff21BC"
    assert normalized("a\x00b") is None
    assert normalized("") is None
