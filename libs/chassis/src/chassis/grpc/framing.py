"""The length-prefixed message framing and header encodings of gRPC over HTTP/2.

Source of every rule here: the "gRPC over HTTP2" protocol description (PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import base64
import gzip
import re
import urllib.parse
import zlib
from collections.abc import AsyncIterator

import grpc

# A flag, and the length of the message.
PREFIX_BYTES = 5
CONTENT_TYPE = b"application/grpc"
# Messages smaller than this do not get smaller by compression.
COMPRESSION_THRESHOLD_BYTES = 1024

_TIMEOUT_DIGITS = 8
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NOT_PRINTABLE = re.compile(r"[^\x20-\x24\x26-\x7e]")


class ProtocolError(Exception):
    """The peer broke the protocol; carries the status to answer with."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


def encode_frame(message: bytes, *, compress: bool = False) -> bytes:
    """`message` behind its five-byte prefix, gzipped when asked to and worth it."""
    if compress and len(message) >= COMPRESSION_THRESHOLD_BYTES:
        message = gzip.compress(message, compresslevel=1)
        return b"\x01" + len(message).to_bytes(4, "big") + message
    return b"\x00" + len(message).to_bytes(4, "big") + message


def decode_payload(compressed: int, payload: bytes, encoding: bytes, limit: int) -> bytes:
    """The message in a frame's payload.

    Raises:
        ProtocolError: unknown flag or encoding, corrupt data, or more than `limit` bytes once decompressed.
    """
    if compressed == 0:
        return payload
    if compressed != 1:
        raise ProtocolError(grpc.StatusCode.INTERNAL, f"unknown compression flag {compressed}")
    if encoding != b"gzip":
        raise ProtocolError(grpc.StatusCode.UNIMPLEMENTED, "the message encoding is not supported")
    inflater = zlib.decompressobj(wbits=31)
    try:
        message = inflater.decompress(payload, limit + 1)
    except zlib.error as error:
        raise ProtocolError(grpc.StatusCode.INTERNAL, "the compressed message is corrupt") from error
    if len(message) > limit:
        raise too_large(limit)
    if not inflater.eof:
        raise ProtocolError(grpc.StatusCode.INTERNAL, "the compressed message is truncated")
    return message


def decode_single(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The one message of a unary body.

    Raises:
        ProtocolError: when the body is not exactly one whole frame within `limit`.
    """
    if len(body) < 5:
        raise ProtocolError(grpc.StatusCode.INTERNAL, "the body has no whole message frame")
    length = int.from_bytes(body[1:5], "big")
    if length > limit:
        raise too_large(limit)
    if len(body) != length + 5:
        raise ProtocolError(grpc.StatusCode.INTERNAL, "the body is not exactly one message")
    return decode_payload(body[0], body[5:], encoding, limit)


async def decode_stream(chunks: AsyncIterator[bytes], encoding: bytes, limit: int) -> AsyncIterator[bytes]:
    """The messages of a streaming body, each within `limit` bytes.

    Raises:
        ProtocolError: on a message over the limit and on a body that ends inside a frame.
    """
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 5:
            length = int.from_bytes(buffer[1:5], "big")
            if length > limit:
                raise too_large(limit)
            if len(buffer) < length + 5:
                break
            flag, payload = buffer[0], bytes(buffer[5 : length + 5])
            del buffer[: length + 5]
            yield decode_payload(flag, payload, encoding, limit)
    if buffer:
        raise ProtocolError(grpc.StatusCode.INTERNAL, "the body ends inside a message frame")


def too_large(limit: int) -> ProtocolError:
    """The answer to a message over the size limit."""
    return ProtocolError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the message is larger than {limit} bytes")


def parse_timeout(value: bytes) -> float | None:
    """Seconds in a grpc-timeout header, or None when it is not one."""
    digits, unit = value[:-1], _UNIT_SECONDS.get(value[-1:])
    return int(digits) * unit if unit is not None and digits.isdigit() and len(digits) <= _TIMEOUT_DIGITS else None


def format_timeout(seconds: float) -> str:
    """A grpc-timeout header for `seconds`, in milliseconds while they fit its eight digits, at most three years."""
    milliseconds = max(0, int(seconds * 1000))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{min(milliseconds // 1000, 10**8 - 1)}S"


def encode_message(text: str) -> bytes:
    """A grpc-message value: percent-encoded UTF-8."""
    if _NOT_PRINTABLE.search(text):
        text = urllib.parse.quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return text.encode()


def decode_message(value: str) -> str:
    """The text of a grpc-message value; what does not decode is replaced, never raised."""
    return urllib.parse.unquote(value, errors="replace")


def encode_binary(value: bytes) -> bytes:
    """A -bin metadata value: base64 without padding."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(value: str) -> bytes:
    """The bytes of a -bin metadata value, with or without padding.

    Raises:
        ValueError: when it is not base64.
    """
    return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
