from __future__ import annotations

from typing import Any

import pytest
from bff.origins import Origins
from chassis.errors import ServiceError
from chassis.http.request import Request

OWN = b"https://api.example.com"


async def no_body() -> dict[str, Any]:
    return {"type": "http.request"}


def request(*origins: str, own: bytes | None = OWN) -> Request:
    headers = [(b"host", b"api.example.com"), *((b"origin", origin.encode("latin-1")) for origin in origins)]
    if own is not None:
        headers.append((b"x-client-origin", own))
    return Request({"type": "http", "scheme": "https", "headers": headers}, no_body)


@pytest.mark.parametrize(
    "origin",
    [
        "https://api.example.com",
        "https://API.example.com",
        "https://api.example.com:8443",
        "https://shop.example",
    ],
)
@pytest.mark.parametrize("own", [OWN, None])
def test_our_own_pages_and_listed_ones_may(origin: str, own: bytes | None) -> None:
    Origins(["https://shop.example"]).check(request(origin, own=own))


def test_what_is_no_browser_may() -> None:
    Origins([]).check(request())


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil@api.example.com",
        "https://evil:evil@api.example.com",
        "https://api.example.com@evil.example",
        "https://api.example.com/",
        "https://api.example.com/page",
        "https://api.example.com?x",
        "https://api.example.com#x",
        "https://api.example.com:",
        "https://api.example.com:x",
        "https://api.example.com:8443:8443",
        "https://api.example.com https://evil.example",
        "https://api.example.com, https://evil.example",
        "https://api.example.com\\.evil.example",
        "https://api.example.com.evil.example",
        "https:// api.example.com",
        "https:///api.example.com",
        "https:api.example.com",
        "//api.example.com",
        "api.example.com",
        "http://api.example.com",
        "https://[::1",
        "https://",
        "://api.example.com",
        "null",
        "",
    ],
)
def test_whatever_else_is_written_there_is_another_site(origin: str) -> None:
    with pytest.raises(ServiceError, match="FOREIGN_ORIGIN"):
        Origins(["https://shop.example"]).check(request(origin))


def test_of_two_origins_both_count() -> None:
    with pytest.raises(ServiceError, match="FOREIGN_ORIGIN"):
        Origins([]).check(request(OWN.decode(), "https://evil.example"))


def test_no_origin_is_that_of_an_authority_which_is_none() -> None:
    with pytest.raises(ServiceError, match="FOREIGN_ORIGIN"):
        Origins([]).check(request("https://", own=b"https://"))
