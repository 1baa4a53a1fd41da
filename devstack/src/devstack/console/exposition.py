"""Reads the numbers that a process tells at /metrics (Prometheus' text format), those alone that the console shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from functools import lru_cache

import h11

# The largest there is has some 150 KiB.
_MOST_BYTES = 4 * 1024 * 1024
_SECONDS = 3.0
_ESCAPE = re.compile(r"\\(.)")


async def fetched(port: int, path: str = "/metrics") -> str:
    """What a process answers at its ops port.

    Raises:
        OSError: it does not answer, or not with 200, or with more than it should.
        TimeoutError: not in time.
    """
    async with asyncio.timeout(_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await _exchange(reader, writer, port, path)
        except h11.RemoteProtocolError as error:
            raise ConnectionError(str(error)) from error
        finally:
            writer.transport.abort()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, path: str) -> str:
    connection = h11.Connection(h11.CLIENT)
    headers = [("host", f"127.0.0.1:{port}"), ("connection", "close")]
    writer.write(connection.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response) and event.status_code != 200:
            raise ConnectionError(f"answers {event.status_code}")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MOST_BYTES:
                raise ConnectionError("tells more than it should")
        elif isinstance(event, h11.EndOfMessage):
            return body.decode(errors="replace")


def numbers(text: str, wanted: Collection[str]) -> dict[str, float]:
    """The value of each series of the families that are wanted; a series by its name with labels, as it is written.

    Args:
        text: of an exposition.
        wanted: names of families, those of a histogram's parts with their suffix.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] in wanted:
            try:
                found[series] = float(value)
            except ValueError:
                continue
    return found


@lru_cache(maxsize=20_000)
def labels(series: str) -> Mapping[str, str]:
    """The labels of a series."""
    found: dict[str, str] = {}
    rest = series.partition("{")[2]
    while (begin := rest.find('="')) > 0:
        end = begin + 2
        while end < len(rest) and rest[end] != '"':
            end += 2 if rest[end] == "\\" else 1
        found[rest[:begin].lstrip(",")] = _ESCAPE.sub(_unescaped, rest[begin + 2 : end])
        rest = rest[end + 1 :]
    return found


def name(series: str) -> str:
    """The name of a series without its labels."""
    return series.partition("{")[0]


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
