"""Requests to fuzz with: right ones, with one to three things wrong. The same seed makes the same requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

Pairs = tuple[tuple[bytes, bytes], ...]

PATHS = (
    b"/v1/products?limit=1", b"/v1/products", b"/v1/me", b"/v1/orders", b"/v1/auth/login", b"/v1/auth/refresh",
    b"/v1/products/01a21795-ae79-759f-9643-173dff9364ef", b"/openapi.yaml", b"/healthz/ready", b"/",
)  # fmt: skip
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
_ODD_METHODS = (
    b"", b"get", b"TRACE", b"CONNECT", b"PRI", b"G E T", b"GET\t", b"G\xe4T", b"GET / HTTP/1.1\r\nx:", b"\0", b"M" * 9000, b"*",
)  # fmt: skip
_ODD_AUTHORITIES = (
    b"", b" ", b"@", b"user@x", b"user:pw@x", b"a b", b"[::1", b"::1", b"[::1]:80", b"[]", b"x:99999", b"x:abc", b"x:", b"x:-1", b"a,b",
    b"%00", b"x%40y", b"a/b", b"x?y", b"x#y", b"\xe4", b"\xff\xfe", b"*", b"..", b"a" * 3000, b"x\ty", b"x;y", b"'", b'"', b"\\", b"http://x", b"x\0y",
)  # fmt: skip
_ODD_PATHS = (
    b"", b"*", b"x", b"//", b"//x/y", b"/../..", b"/v1/%", b"/v1/%00", b"/v1/%2e%2e/me", b"/v1/me%2f", b"/v1/products?%ff=%fe", b"/\\", b"/v1/ me",
    b"/v1/\xc3\xa4", b"/\xff", b"/v1/products?" + b"a=b&" * 3000, b"/" + b"a/" * 4000, b"/v1/products#x", b"http://x/v1/me", b"ftp://x/v1/me",
    b"http://user@x/v1/products", b"/;x", b"/\0", b"/\x7f", b"/v1/products?limit=1 HTTP/1.1\r\nx: y", b'/v1/products?q="<>`{}|^',
)  # fmt: skip
_ODD_SCHEMES = (b"", b"http", b"ftp", b"HTTPS", b"https\0", b"h t", b"\xff", b"javascript", b"https:", b"s" * 500)
_ODD_HEADERS: Pairs = (
    (b"te", b"gzip"), (b"te", b"trailers, deflate"), (b"connection", b"close, x-client-address"), (b"connection", b"upgrade"), (b"upgrade", b"websocket"),
    (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"gzip"), (b"content-length", b"5"), (b"content-length", b"-1"), (b"content-length", b"99999999999999999999"),
    (b"host", b"evil.example"), (b"host", b"@"), (b"expect", b"100-continue"), (b"expect", b"x"), (b"proxy-connection", b"keep-alive"),
    (b"keep-alive", b"timeout=1"), (b"x-envoy-upstream-rq-timeout-ms", b"1"), (b"x-envoy-max-retries", b"1000"), (b"x-envoy-upstream-alt-stat-name", b"x"),
    (b"x-envoy-retry-on", b"5xx"), (b"x-envoy-expected-rq-timeout-ms", b"1"), (b"x-envoy-decorator-operation", b"x"), (b"x-envoy-original-path", b"/"),
    (b"x-envoy-force-trace", b"1"), (b"x-request-id", b"evil id"), (b"x-request-id", b"\xff" * 300), (b"x-client-trace-id", b"x"), (b"traceparent", b"00-\xff\xfe-x-01"),
    (b"traceparent", b"a" * 4000), (b"tracestate", b"\xff"), (b"baggage", b"\x80=\x80"), (b"grpc-timeout", b"1n"), (b"grpc-status", b"13"), (b"content-type", b"application/grpc"),
    (b"x-forwarded-for", b"0.0.0.0"), (b"x-forwarded-for", b"255.255.255.255"), (b"x-forwarded-for", b"a, b, ::::"), (b"x-forwarded-proto", b"ftp"), (b"x-forwarded-host", b"@"),
    (b"x-forwarded-port", b"x"), (b"x-forwarded-client-cert", b"By=x"), (b"forwarded", b'for="["'), (b"cookie", b"; ".join(b"c%d=v" % n for n in range(3000))),
    (b"cookie", b"refresh_token=\xff"), (b"authorization", b"Bearer \xff"), (b"authorization", b"Bearer " + b"." * 20000), (b"accept", b"," * 8000), (b"accept", b"*/*;q=\xff"),
    (b"accept-encoding", b"gzip;q=" + b"9" * 5000), (b"range", b"bytes=0-0"), (b"if-none-match", b'"\xff"'), (b"if-match", b"W/"), (b"idempotency-key", b"\xff" * 200),
    (b"content-encoding", b"gzip"), (b"origin", b"null"), (b"access-control-request-method", b"\xff"), (b"x-a", b"\xff\xfe\xfd"), (b"x-a", b"b\0c"), (b"x-a", b"b\r\nx-b: c"),
    (b"x-a", b" " * 5000), (b"x-a", b"y" * 31000), (b"", b"empty"), (b":authority", b"again"), (b":protocol", b"websocket"), (b":status", b"200"), (b":foo", b"x"),
    (b"x_y", b"z"), (b"X-Upper", b"z"), (b"x y", b"z"), (b"x\xe4", b"z"), (b"x:y", b"z"), (b"trailer", b"x-t"), (b"http2-settings", b"AAMAAABk"), (b"via", b"1.1 x"),
    (b"max-forwards", b"0"), (b"date", b"x"), (b"x-caller-id", b"x"), (b"x-client-address", b"x"), (b"x-ratelimit-remaining", b"x"),
)  # fmt: skip
_JSON: Pairs = ((b"content-type", b"application/json"),)
_ODD_BODIES = (b"", b"{", b"{}", b'{"email": "a@b.de", "password": "x"}', b"\xff" * 100, b"[" * 2000, b"x" * 70_000)
_ENDINGS = ("reset", "abort", "half")


@dataclass(frozen=True, slots=True)
class Shot:
    """A request, and how its sender behaves: waits for the answer, resets the stream, aborts the connection, stops halfway."""

    method: bytes = b"GET"
    path: bytes = b"/v1/products?limit=1"
    scheme: bytes = b"https"
    authorities: tuple[bytes, ...] = (b"localhost",)
    headers: Pairs = ()
    body: bytes | None = None
    trailers: Pairs = ()
    ending: str = "wait"


def shots(random: Random) -> Iterator[Shot]:
    """Without end."""
    while True:
        method = random.choice(METHODS)
        shot = Shot(method=method, path=random.choice(PATHS), headers=_JSON if method[0] == ord("P") else ())
        if method in (b"POST", b"PUT", b"PATCH"):
            shot = replace(shot, body=random.choice(_ODD_BODIES))
        for _ in range(random.randint(1, 3)):
            shot = _mutated(shot, random)
        yield shot


def _mutated(shot: Shot, random: Random) -> Shot:  # noqa: PLR0911 - one line for each kind
    match random.randrange(12):
        case 0 | 1:
            return replace(shot, authorities=(_bent(random.choice(_ODD_AUTHORITIES), random),))
        case 2:
            return replace(shot, authorities=random.choice(((), (b"a", b"b"), (b"a", b"a"), (b"", b"a"), (b"@", b"a"))))
        case 3 | 4:
            return replace(shot, path=_bent(random.choice(_ODD_PATHS + PATHS), random))
        case 5:
            return replace(shot, method=_bent(random.choice(_ODD_METHODS), random))
        case 6:
            return replace(shot, scheme=_bent(random.choice(_ODD_SCHEMES), random))
        case 7:
            return replace(shot, trailers=(random.choice(_ODD_HEADERS),), body=shot.body or b"x")
        case 8:
            return replace(shot, ending=random.choice(_ENDINGS))
        case 9:
            return replace(shot, body=random.choice(_ODD_BODIES))
        case _:
            name, value = random.choice(_ODD_HEADERS)
            return replace(shot, headers=(*shot.headers, (name, _bent(value, random))))


def _bent(value: bytes, random: Random) -> bytes:
    """Sometimes with a byte more, less or other."""
    if random.random() < 0.7:
        return value
    at = random.randint(0, len(value))
    odd = bytes([random.randrange(256)])
    return value[:at] + random.choice((odd, b"", odd * 3)) + value[at + random.randint(0, 1) :]
