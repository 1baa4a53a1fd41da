"""How many choices a password took, where a sequence or a known word is one and a repetition none.

`trialtrial` took as many choices as `trial`, five; `abcdefghij` and `qwertyuiop` took one each; `Password123!` is a known word,
a sequence and a sign, so it took three. This is what somebody who guesses has to get right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile

# Shorter sequences occur in ordinary words: `rst`, `ere`.
_SHORTEST_RUN = 4
_SHORTEST_REPEAT = 3
# Neighbours on keyboards (US, German, French), by row and by column; `1234567890` wraps where the code points do not.
_KEYBOARD = (
    "1234567890", "!@#$%^&*()", "qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "qsdfghjklm", "zxcvbnm", "yxcvbnm",
    "wxcvbn", "1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm", "8ik,", "9ol.", "0p;/",
)  # fmt: skip
_ROWS = tuple(way for row in _KEYBOARD for way in (row, row[::-1]))
# Signs and digits that people write instead of letters; a one may be an l or an i.
_DRESSED = tuple(str.maketrans("@4310$5!7", letters) for letters in ("aaelossit", "aaeiossit"))
# Stands for a known word; a password has no control characters.
_KNOWN = "\0"


def undressed(text: str) -> set[str]:
    """The readings of a text: as it is, and with letters for signs and digits (`p@$$w0rd` is `password`)."""
    return {text, *map(text.translate, _DRESSED)}


def without(text: str, words: Iterable[str]) -> Iterator[str]:
    """`text` with each known word in it replaced by one choice, in every reading that has any."""
    ordered = sorted(words, key=len, reverse=True)
    for reading in undressed(text):
        left = reading
        for word in ordered:
            left = left.replace(word, _KNOWN)
        if left != reading:
            yield left


def without_core(text: str, words: Collection[str], longest: int) -> Iterator[str]:
    """`text` with its core replaced by one choice, if the core is one of the words.

    The core is the text without the signs and digits around it. As these may also stand for its first and last letters
    (`$unshine`), different numbers of them are left off. `longest` is the longest word's length.
    """
    length = len(text)
    before = next((i for i in range(length) if text[i].isalpha()), length)
    after = next((i for i in range(length) if text[length - 1 - i].isalpha()), length)
    if before == length:
        return
    for start in range(max(0, length - after - longest), before + 1):
        for end in range(length - after, min(length, start + longest) + 1):
            if not undressed(text[start:end]).isdisjoint(words):
                yield text[:start] + _KNOWN + text[end:]


def choices(text: str, most: int) -> int:
    """How many choices `text` took; counting stops at `most`.

    It is read as it stands, without doubled characters when all are (`aabbcc`), and as two texts that alternate (`a1b2c3`);
    the reading that took the fewest counts.
    """
    found = _count(text, most)
    single = "".join(here for before, here in zip("\0" + text, text, strict=False) if here != before)
    if len(single) * 2 <= len(text):
        found = min(found, _count(single, most))
    return min(found, _count(text[::2], most) + _count(text[1::2], most))


def _count(text: str, most: int) -> int:
    found = at = 0
    while at < len(text) and found < most:
        if again := _repeat(text, at):
            at += again
        else:
            at += max(1, _run(text, at))
            found += 1
    return found


def _run(text: str, at: int) -> int:
    """How long the sequence is that begins here: in equal steps of at most two, or along a keyboard."""
    end = at + 2
    step = ord(text[at + 1]) - ord(text[at]) if end <= len(text) else 3
    if abs(step) <= 2:
        while end < len(text) and ord(text[end]) - ord(text[end - 1]) == step:
            end += 1
    start = text[at : at + _SHORTEST_RUN]
    for row in _ROWS:
        if (place := row.find(start)) >= 0 and len(start) == _SHORTEST_RUN:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(row[place:], text[at:], strict=False))
            end = max(end, at + len(list(same)))
    return end - at if end - at >= _SHORTEST_RUN else 0


def _repeat(text: str, at: int) -> int:
    """How long a part of what follows occurs earlier in the text. Found by bisection: if a part repeats, its beginning does."""
    least, most = _SHORTEST_REPEAT - 1, len(text) - at
    while least < most:
        length = (least + most + 1) // 2
        if text.find(text[at : at + length], 0, at + length - 1) >= 0:
            least = length
        else:
            most = length - 1
    return least if least >= _SHORTEST_REPEAT else 0
