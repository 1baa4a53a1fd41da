"""gRPC's frames, status messages and timeouts on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from chassis.grpc import framing
from hypothesis import given
from hypothesis import strategies as st

printable = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(st.binary(max_size=5000), st.booleans())
def test_a_frame_decodes_to_its_message(message: bytes, compress: bool) -> None:
    frame = framing.encode_frame(message, compress=compress)
    assert framing.decode_single(frame, b"gzip", 10_000) == message


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 64))
async def test_a_stream_decodes_however_it_is_cut(messages: list[bytes], size: int) -> None:
    body = b"".join(framing.encode_frame(message) for message in messages)

    async def chunks() -> Any:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    assert [message async for message in framing.decode_stream(chunks(), b"identity", 10_000)] == messages


@given(st.binary(max_size=200))
def test_garbage_is_a_protocol_error_or_a_message(body: bytes) -> None:
    try:
        framing.decode_single(body, b"gzip", 100)
    except framing.ProtocolError as error:
        assert error.details


@given(printable)
def test_a_status_message_survives(text: str) -> None:
    encoded = framing.encode_message(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert framing.decode_message(encoded.decode()) == text


@given(st.floats(0, 10**8))
def test_a_timeout_survives_to_the_millisecond(seconds: float) -> None:
    parsed = framing.parse_timeout(framing.format_timeout(seconds).encode())
    assert parsed is not None
    # Truncated, never longer: to the millisecond while that fits eight digits, to the second above.
    assert -1e-9 <= seconds - parsed < (1.1 if seconds >= 10**5 else 0.002)


@pytest.mark.parametrize(
    "value", [b"", b"1", b"S", b"-1S", b"+1S", b"1_0S", b" 1S", b"1S ", b"\xb2S", b"123456789S", b"1x", b"1.5S"]
)
def test_what_is_no_timeout_is_none(value: bytes) -> None:
    assert framing.parse_timeout(value) is None
