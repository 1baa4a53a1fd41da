"""Protobuf messages written by hand, where generated classes take too long or would need a schema of their own.

A field's tag is its number and its wire type: 0 a varint, 1 eight bytes, 2 bytes with their length before them, 5 four
(protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

_BYTES = 2


def field(number: int, content: bytes) -> bytes:
    """A field of bytes: a string, a message, or packed numbers."""
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number that is not negative, seven bits a byte."""
    if value < 0x80:
        return bytes((value,))
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
