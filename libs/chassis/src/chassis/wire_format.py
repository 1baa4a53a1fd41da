"""Protobuf messages written by hand, where generated classes take too long or would need a schema of their own.

A field's tag is its number and its wire type: 0 a varint, 1 eight bytes, 2 bytes with their length before them, 5 four
(protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

_BYTES = 2
# Most tags and lengths are one byte: those, made once.
_SHORT = tuple(bytes((value,)) for value in range(0x80))


def field(number: int, content: bytes) -> bytes:
    """A field of bytes: a string, a message, or packed numbers."""
    tag, length = number << 3 | _BYTES, len(content)
    return (
        (_SHORT[tag] if tag < 0x80 else varint(tag)) + (_SHORT[length] if length < 0x80 else varint(length)) + content
    )


def varint(value: int) -> bytes:
    """A number that is not negative, seven bits a byte."""
    if value < 0x80:
        return _SHORT[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
