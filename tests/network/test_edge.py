"""At the public door: what is refused before Python sees it, and that the same is let in where the policy is left out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
import uuid
from typing import Any

import httpx
import inside
import jwt
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from contracts.bff.v1.operations import OPERATIONS
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from devstack.console import spans
from devstack.layout import PORTS
from devstack.options import Options
from mesh.envoy import ADDRESS_REQUESTS
from user.repository.signing_keys import load_keys

from conftest import People, Platform, client_address, http_client, new_key
from devstack import keys


def encoded(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


class Forger:
    """Makes tokens that are nearly right."""

    def __init__(self, stack: Platform, good: str) -> None:
        self.header = jwt.get_unverified_header(good)
        self.claims: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
        (self.key, *_) = [k for k in load_keys(keys.directory(stack.layout)) if k.kid == self.header["kid"]]
        self.good = good

    def token(self, *, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        claims = {name: value for name, value in {**self.claims, **changes}.items() if value is not None}
        headers = {"kid": self.header["kid"], **(header or {})}
        return jwt.encode(claims, key or self.key.private, algorithm="ES256", headers=headers)

    def all(self) -> dict[str, str]:
        head, payload, signature = self.good.split(".")
        now = int(time.time())
        public = self.key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        hs256 = f"{encoded({**self.header, 'alg': 'HS256'})}.{payload}"
        digest = base64.urlsafe_b64encode(hmac.digest(public, hs256.encode(), hashlib.sha256)).rstrip(b"=").decode()
        return {
            "no token": "",
            "not a token": "abc",
            "alg none": f"{encoded({**self.header, 'alg': 'none'})}.{payload}.",
            "HS256 with the public key": f"{hs256}.{digest}",
            "no signature": f"{head}.{payload}.",
            "another signature": f"{head}.{payload}.{signature[::-1]}",
            "other claims under the signature": f"{head}.{encoded({**self.claims, 'roles': ['admin']})}.{signature}",
            "a key of its own": self.token(key=ec.generate_private_key(ec.SECP256R1())),
            "an unknown kid": self.token(header={"kid": "unknown"}),
            "a jwk of its own": self.token(key=ec.generate_private_key(ec.SECP256R1()), header={"jwk": {"kty": "EC"}}),
            "wrong issuer": self.token(iss="https://evil.example"),
            "wrong audience": self.token(aud="another-api"),
            "expired": self.token(exp=now - 10),
            "never expires": self.token(exp=None),
            "lives for ten years": self.token(exp=now + 10 * 365 * 86400),
            "lives longer than the issuer says": self.token(exp=now + 320),
            "not yet valid": self.token(nbf=now + 60),
            "oversized": self.token(padding="x" * 20_000),
        }


@pytest.fixture
async def forger(people: People, stack: Platform) -> Forger:
    client = await people.role("customer")
    assert client.access_token is not None
    return Forger(stack, client.access_token)


class TestAuthentication:
    async def test_a_token_that_is_not_right_is_refused_before_python(
        self, people: People, stack: Platform, forger: Forger
    ) -> None:
        forged = {**forger.all(), "oversized": "x" * 40_000}
        responses = []
        for what, token in forged.items():
            headers = {"authorization": f"Bearer {token}"} if what != "no token" else {}
            response = await people.http.get("/v1/me", headers=headers)
            if what != "oversized":
                responses.append(response)
            assert response.status_code == (431 if what == "oversized" else 401), what
            assert response.headers["content-type"] == "application/problem+json"
            if what != "oversized":
                assert response.json()["type"] == "urn:backend:problem:unauthenticated"
                error = "" if what == "no token" else ', error="invalid_token"'
                assert response.headers["www-authenticate"] == f'Bearer realm="backend"{error}', what
        two = [("authorization", f"Bearer {forger.good}"), ("authorization", f"Bearer {forger.token()}")]
        for path in ("/v1/me", "/v1/products"):
            responses.append(await people.http.get(path, headers=two))
            assert responses[-1].status_code == 401
        assert await inside.reached_python(stack, responses) == 0

    @pytest.mark.parametrize("spelling", ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer   "])
    async def test_the_scheme_is_a_word_of_any_case(self, people: People, forger: Forger, spelling: str) -> None:
        """RFC 9110, section 11.1; and one or more spaces."""
        for path in ("/v1/me", "/v1/orders?limit=1"):
            answer = await people.http.get(path, headers={"authorization": f"{spelling}{forger.good}"})
            assert answer.status_code == 200, answer.text

    @pytest.mark.parametrize(
        "written", ["Basic {}", "Digest {}", "Bearerx {}", "XBearer {}", "Bearer{}", "{}", ":Bearer {}"]
    )
    async def test_a_good_token_behind_another_scheme_is_none(
        self, people: People, forger: Forger, written: str
    ) -> None:
        answer = await people.http.get("/v1/me", headers={"authorization": written.format(forger.good)})
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:backend:problem:unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")

    async def test_a_token_that_was_good_is_refused_when_it_has_expired(
        self, people: People, stack: Platform, forger: Forger
    ) -> None:
        """The edge remembers a verified signature, never a verified time."""
        # Five seconds of clock skew are allowed for.
        headers = {"authorization": f"Bearer {forger.token(exp=int(time.time()) - 3)}"}
        before = await people.http.get("/v1/me", headers=headers)
        await asyncio.sleep(5)
        after = await people.http.get("/v1/me", headers=headers)
        for answer in (before, after):
            assert answer.headers["www-authenticate"] == 'Bearer realm="backend", error="invalid_token"'
        assert [await inside.reached_python(stack, [answer]) for answer in (before, after)] == [1, 0]

    async def test_exactly_what_the_contract_says_needs_a_token(self, people: People, stack: Platform) -> None:
        from contracts.bff.v1.operations import OPERATIONS

        for operation in OPERATIONS:
            path = operation.path.replace("{", "").replace("}", "")
            response = await people.http.request(operation.method, path)
            needs_a_token = "www-authenticate" in response.headers
            # Logging out is for whoever has an access token or a cookie; the BFF says so, not the edge.
            assert needs_a_token is (not operation.anonymous or operation.id == "logout"), operation.id

    async def test_without_the_filter_they_would_reach_python(self, stack: Platform, forger: Forger) -> None:
        with inside.edge(stack, None, "authentication") as url:
            async with http_client(url) as http:
                response = await http.get("/v1/me", headers={"authorization": f"Bearer {forger.token(iss='x')}"})
        # The BFF refuses it as well; but it has had the work.
        assert response.status_code == 401
        assert await inside.reached_python(stack, [response]) == 1

    async def test_without_the_rule_two_credentials_would_reach_python(self, stack: Platform, forger: Forger) -> None:
        two = [("authorization", f"Bearer {forger.good}"), ("authorization", f"Bearer {forger.token()}")]
        with inside.edge(stack, None, "doubled_credentials") as url:
            async with http_client(url) as http:
                response = await http.get("/v1/products?limit=1", headers=two)
        assert await inside.reached_python(stack, [response]) == 1

    async def test_a_flood_of_bad_tokens_costs_the_bff_nothing(
        self, people: People, stack: Platform, forger: Forger
    ) -> None:
        bad = {"authorization": f"Bearer {forger.token(key=ec.generate_private_key(ec.SECP256R1()))}"}
        async with http_client(stack.url) as http:

            async def flood() -> list[httpx.Response]:
                return [await http.get("/v1/orders", headers=bad) for _ in range(100)]

            responses = [response for some in await asyncio.gather(*(flood() for _ in range(10))) for response in some]
        assert {response.status_code for response in responses} == {401}
        assert await inside.reached_python(stack, responses) == 0

    async def test_identity_headers_of_a_client_are_dropped(self, people: People, stack: Platform) -> None:
        """What only we may say is said by us: the address in the session's record is not the one a client invents."""
        client, login = await people.newcomer()
        headers = {"x-client-address": "6.6.6.6", "x-forwarded-for": "6.6.6.6", "x-real-ip": "6.6.6.6"}
        response = await people.http.post("/v1/auth/login", json=json.loads(_json(login)), headers=headers)
        client.access_token = response.json()["access_token"]
        sessions = (await client.list_my_sessions()).data.items
        assert all(session.address.startswith("127.") for session in sessions)
        with inside.edge(stack, None, "client_headers") as url:
            async with http_client(url) as http:
                await http.post("/v1/auth/login", json=json.loads(_json(login)), headers=headers)
        sessions = (await client.list_my_sessions()).data.items
        assert [session.address for session in sessions].count("6.6.6.6") == 1

    @pytest.mark.parametrize(("without", "is_traced"), [((), False), (("tracing",), True)])
    async def test_no_client_has_itself_traced_or_names_its_trace(
        self, stack: Platform, without: tuple[str, ...], is_traced: bool
    ) -> None:
        trace_id = secrets.token_hex(16)
        with inside.edge(stack, None, *without) as url:
            async with http_client(url) as http:
                headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "baggage": "a=b"}
                assert (await http.get("/v1/products?limit=1", headers=headers)).status_code == 200
        # What was kept is sent twice a second.
        await asyncio.sleep(1.5)
        assert bool(spans.of_request(stack.layout.spans, trace_id).spans) is is_traced


def _json(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


async def failed_logins(http: httpx.AsyncClient, times: int) -> list[httpx.Response]:
    """Wrong logins, each for another account, so that only the address is what they have in common."""
    return [
        await http.post("/v1/auth/login", json={"email": f"{new_key()}@example.com", "password": "wrong"})
        for _ in range(times)
    ]


class TestRateLimits:
    async def test_a_login_flood_from_one_address_hurts_nobody_else(self, people: People, stack: Platform) -> None:
        customer, _ = await people.newcomer()
        async with http_client(stack.url) as flooder, http_client(stack.url) as neighbour:
            answers = await failed_logins(flooder, 30)
            assert [a.status_code for a in answers] == [401] * 20 + [429] * 10
            refused = answers[-1]
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.json()["type"] == "urn:backend:problem:rate-limited"
            assert 1 <= int(refused.headers["retry-after"]) <= 63
            assert refused.headers["ratelimit-policy"] == '"login";q=20;w=60'
            assert refused.headers["ratelimit"].startswith('"login";r=0;t=')
            assert answers[0].headers["ratelimit"].startswith('"login";r=19;t=')
            # The same address may do other things; others may log in; who is logged in goes on.
            assert (await flooder.get("/v1/products?limit=1")).status_code == 200
            assert (await failed_logins(neighbour, 1))[0].status_code == 401
            assert (await customer.get_me()).status == 200

    async def test_users_are_counted_apart_whatever_their_address(self, people: People, stack: Platform) -> None:
        one, _ = await people.newcomer()
        other, _ = await people.newcomer()
        body = models.CreateOrderRequest(items=[models.OrderLine(product_id=new_key(), quantity=1)])

        async def order(client: BackendClient) -> int:
            try:
                return (await client.create_order(body, idempotency_key=new_key())).status
            except ApiError as error:
                return error.status

        statuses = await asyncio.gather(*(order(one) for _ in range(130)))
        assert (statuses.count(422), statuses.count(429)) == (120, 10)
        async with http_client(stack.url) as elsewhere:
            moved = BackendClient(elsewhere)
            moved.access_token = one.access_token
            assert await order(moved) == 429
        assert await order(other) == 422

    async def test_one_address_may_ask_so_much_in_all(self, stack: Platform) -> None:
        """Whatever it asks for: what there is not, by a method or with a token that are wrong, what is over its own limit."""
        scarce = Options(rate_limit_scale=20 / ADDRESS_REQUESTS)
        floods: tuple[tuple[str, str, dict[str, str], set[int]], ...] = (
            ("GET", "/nothing", {}, {404}),
            ("DELETE", "/v1/products", {}, {405}),
            ("GET", "/v1/me", {"authorization": "Bearer a.b.c"}, {401}),
            ("GET", "/docs", {}, {200, 429}),
        )

        async def flood(url: str, method: str, path: str, headers: dict[str, str]) -> list[httpx.Response]:
            async with inside.from_address(client_address(), url) as http:
                asked = (http.request(method, path, headers=headers) for _ in range(16))
                return await asyncio.gather(*asked)

        def by_address(answer: httpx.Response) -> bool:
            return "ratelimit" in answer.headers and answer.headers["ratelimit"] == '"address";r=0;t=1'

        with inside.edge(stack, scarce) as url:
            for asked in await asyncio.gather(
                *(flood(url, method, path, headers) for method, path, headers, _ in floods)
            ):
                refused = [answer for answer in asked if by_address(answer)]
                # Ten at once, and ten more over the minute.
                assert 3 <= len(refused) <= 6
                for answer in refused:
                    assert (answer.status_code, answer.json()["type"]) == (429, "urn:backend:problem:rate-limited")
                    assert answer.headers["retry-after"] == "1"
                    # Who goes on needs a new connection for it, and has waited.
                    assert answer.headers["connection"] == "close"
                    assert answer.elapsed.total_seconds() >= 1.9
            async with http_client(url) as neighbour:
                assert (await neighbour.get("/v1/products?limit=1")).status_code == 200
        with inside.edge(stack, scarce, "address_rate_limits") as url:
            answers = await asyncio.gather(*(flood(url, method, path, headers) for method, path, headers, _ in floods))
            for asked, (*_, own) in zip(answers, floods, strict=True):
                assert {answer.status_code for answer in asked} == own
                assert not any(map(by_address, asked))

    async def test_what_the_floor_refuses_costs_the_limiter_nothing(self, stack: Platform) -> None:
        with inside.another(stack, "edge", Options()) as own:
            started = time.monotonic()
            async with http_client(f"http://127.0.0.1:{own.port('public')}") as http:
                body = {"refresh_token": "none"}
                asked = (http.post("/v1/auth/refresh", json=body) for _ in range(200))
                answers = await asyncio.gather(*asked)
            refilled = 30 / 60 * (time.monotonic() - started)
            found = await inside.metrics(f"http://127.0.0.1:{own.port('edge_ops')}")
        kinds = (
            f'envoy_cluster_ratelimit_{kind}{{envoy_cluster_name="bff"}}' for kind in ("ok", "over_limit", "error")
        )
        assert sum(found.get(kind, 0) for kind in kinds) <= 30 + refilled
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 170
        for answer in refused:
            assert answer.headers["ratelimit-policy"] == '"refreshTokens";q=30;w=60'
            assert answer.headers["ratelimit"].startswith('"refreshTokens";r=0;t=')
            assert 1 <= int(answer.headers["retry-after"]) <= 63

    async def test_sensitive_operations_are_counted_over_all_edges(self, stack: Platform) -> None:
        with inside.edge(stack) as url:
            address = client_address()
            limits = {"limits": httpx.Limits(max_connections=4)}
            async with _from(address, stack.url, **limits) as here, _from(address, url, **limits) as there:
                first = await failed_logins(here, 12)
                second = await failed_logins(there, 12)
        assert [a.status_code for a in first + second] == [401] * 20 + [429] * 4

    async def test_without_the_limiter_each_edge_counts_for_itself(self, stack: Platform) -> None:
        with inside.edge(stack, None, "global_rate_limits") as url:
            address = client_address()
            async with _from(address, stack.url) as here, _from(address, url) as there:
                await failed_logins(here, 15)
                answers = await failed_logins(there, 15)
        assert [a.status_code for a in answers] == [401] * 15

    async def test_plain_reads_are_limited_in_the_edge(self, stack: Platform) -> None:
        async with http_client(stack.url) as http:
            started = time.monotonic()
            answers = await _reads_until_refused(http, 1200)
            refilled = 10 * (time.monotonic() - started)
            limited = [answer for answer in answers if answer.status_code == 429]
            assert limited
            # Half of 1,200 at once, the other half over the minute.
            assert 600 <= len(answers) - len(limited) <= 601 + refilled
            assert limited[-1].headers["ratelimit-policy"] == '"listProducts";q=1200;w=60'
            assert int(limited[-1].headers["retry-after"]) >= 1
            # What a client is told holds.
            await asyncio.sleep(int(limited[-1].headers["retry-after"]))
            assert (await http.get("/v1/products?limit=1")).status_code == 200
        with inside.edge(stack, None, "local_rate_limits") as url:
            async with http_client(url) as http:
                assert all(answer.status_code == 200 for answer in await _reads_until_refused(http, 1200))

    async def test_without_the_limiter_the_floor_holds_and_a_metric_says_so(self, stack: Platform) -> None:
        ops = stack.status["endpoints"]["edge_ops"]
        name = 'envoy_cluster_ratelimit_failure_mode_allowed{envoy_cluster_name="bff"}'
        before = (await inside.metrics(ops)).get(name, 0)
        with inside.paused(stack.pid("limiter")):
            async with http_client(stack.url) as http:
                answers = await failed_logins(http, 26)
                statuses = [answer.status_code for answer in answers]
                # The bucket is as large as the limit and is refilled meanwhile.
                assert statuses[:20] == [401] * 20
                assert statuses.count(429) >= 1
                assert (await http.get("/v1/products?limit=1")).status_code == 200
        assert (await inside.metrics(ops))[name] >= before + 20
        async with asyncio.timeout(20), http_client(stack.url) as http:
            while "ratelimit" not in (await failed_logins(http, 1))[0].headers:
                await asyncio.sleep(0.5)


def _from(address: str, url: str, **options: Any) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address, **options)
    return httpx.AsyncClient(base_url=url, timeout=30, transport=transport)


async def _reads_until_refused(http: httpx.AsyncClient, most: int) -> list[httpx.Response]:
    """The answers of sixteen readers who stop when one of them is refused, or after `most` reads."""
    answers: list[httpx.Response] = []

    async def read() -> None:
        while len(answers) < most and (not answers or answers[-1].status_code == 200):
            answers.append(await http.get("/v1/products?limit=1"))

    await asyncio.gather(*(read() for _ in range(16)))
    return answers


class TestAnswers:
    async def test_another_method_is_answered_by_the_edge(self, people: People, stack: Platform) -> None:
        paths = {o.path for o in OPERATIONS}
        answers = []
        for path in sorted(paths):
            known = {o.method for o in OPERATIONS if o.path == path}
            allowed = ", ".join(sorted(known | ({"HEAD"} if "GET" in known else set())))
            for method in {"DELETE", "PUT", "PROPFIND"} - known:
                answer = await people.http.request(method, re.sub("{[a-z_]+}", str(uuid.uuid4()), path))
                assert (answer.status_code, answer.headers.get("allow")) == (405, allowed), path
                assert answer.json()["type"] == "urn:backend:problem:method-not-allowed"
                answers.append(answer)
        assert await inside.reached_python(stack, answers) == 0

    async def test_every_answer_has_the_security_headers(self, people: People, stack: Platform) -> None:
        for path in ("/v1/products?limit=1", "/v1/nope", "/v1/me"):
            headers = (await people.http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-frame-options"] == "DENY"
            assert "strict-transport-security" not in headers
            assert not any(name.startswith("x-envoy") for name in headers)
        docs = (await people.http.get("/docs")).headers["content-security-policy"]
        assert "script-src 'sha256-" in docs
        with inside.edge(stack, None, "security_headers") as url:
            async with http_client(url) as http:
                assert "x-content-type-options" not in (await http.get("/v1/products?limit=1")).headers

    async def test_https_has_hsts_and_offers_http3_which_works(self, stack: Platform) -> None:
        port = stack.layout.port("public_tls")
        async with httpx.AsyncClient(http2=True, verify=inside.trusting(stack)) as http:
            response = await http.get(f"https://localhost:{port}/v1/products?limit=1")
        assert response.http_version == "HTTP/2"
        assert response.headers["strict-transport-security"].startswith("max-age=63072000")
        assert response.headers["alt-svc"] == f'h3=":{port}"; ma=86400'
        assert await inside.over_http3(stack, port) == 200
        with inside.another(stack, "edge", Options(without=("http3",))) as own:
            port = own.port("public_tls")
            async with httpx.AsyncClient(http2=True, verify=inside.trusting(stack)) as http:
                response = await http.get(f"https://localhost:{port}/v1/products?limit=1")
            assert "alt-svc" not in response.headers
            assert await inside.over_http3(stack, port) is None

    async def test_plain_http_redirects_where_https_is_the_policy(self, stack: Platform) -> None:
        with inside.edge(stack, Options(https_only=True)) as url:
            async with http_client(url) as http:
                response = await http.get("/v1/products?limit=1")
                called = [
                    await http.get("/v1/products?limit=1", headers={"host": host})
                    for host in ("evil.example", "evil.example:80", "LOCALHOST", "[::1]")
                ]
                posted = await http.post("/v1/auth/login", json={"email": "a@example.com", "password": "in the clear"})
        secure = int(url.rsplit(":", 1)[1]) - PORTS["public"] + PORTS["public_tls"]
        for answer in (response, *called):
            assert answer.status_code == 301
            # To our own name, whatever the client calls us: a cache keeps such an answer for everybody.
            assert answer.headers["location"] == f"https://localhost:{secure}/v1/products?limit=1"
        # What was sent in the clear is not sent again.
        assert (posted.status_code, "location" in posted.headers) == (400, False)

    async def test_json_over_a_kibibyte_is_compressed_and_tokens_never(self, people: People, stack: Platform) -> None:
        gzip = {"accept-encoding": "gzip"}
        large = await people.http.get("/v1/products?limit=50", headers=gzip)
        assert large.headers["content-encoding"] == "gzip"
        assert len(large.json()["items"]) == 50
        small = await people.http.get("/v1/products?limit=1", headers=gzip)
        assert "content-encoding" not in small.headers
        config = (stack.layout.envoy / "edge.yaml").read_text(encoding="utf-8")
        # Up to the next route.
        login = config[config.index("- name: login\n") :].partition("match:\n")[2].partition("match:\n")[0]
        assert "CompressorPerRoute" in login
        with inside.edge(stack, None, "compression") as url:
            async with http_client(url) as http:
                assert "content-encoding" not in (await http.get("/v1/products?limit=50", headers=gzip)).headers

    async def test_an_entity_tag_names_bytes_and_stays_strong(self, people: People) -> None:
        client, _ = await people.newcomer()
        products = [await people.product() for _ in range(8)]
        order = await people.order(client, *[(product, 1) for product in products])
        headers = {"authorization": f"Bearer {client.access_token}", "accept-encoding": "gzip"}
        response = await people.http.get(f"/v1/orders/{order.id}", headers=headers)
        assert len(response.content) > 1024
        assert response.headers["etag"] == '"1"'

    async def test_no_refusal_is_disguised_as_grpc(self, stack: Platform) -> None:
        """Which Envoy would answer 200, without content."""
        body = b"x" * 70_000
        asked: tuple[tuple[int, str, str, dict[str, str], bytes], ...] = (
            (401, "GET", "/v1/me", {}, b""),
            (401, "HEAD", "/v1/me", {}, b""),
            (401, "POST", "/v1/orders", {"authorization": "Bearer x"}, b"{}"),
            (404, "GET", "/v1/nope", {}, b""),
            (404, "GET", "/v1/%41", {}, b""),
            (400, "GET", "/v1/me%2fsessions", {}, b""),
            (400, "GET", "/v1/products", {"host": "a@b"}, b""),
            (405, "DELETE", "/v1/products", {}, b""),
            (413, "POST", "/v1/auth/login", {}, body),
            (415, "POST", "/v1/auth/login", {}, b"{}"),
            (429, "POST", "/v1/auth/login", {}, b"{}"),
            (431, "GET", "/v1/products", {f"x-{number}": "y" for number in range(80)}, b""),
        )
        for kind in ("application/grpc", "application/grpc+proto", "application/grpc-web", "text/plain"):
            async with http_client(stack.url) as http:
                for status, method, path, headers, content in asked:
                    if status == 429:
                        await failed_logins(http, 21)
                    sent = {**headers, "content-type": kind}
                    answer = await http.request(method, path, headers=sent, content=content)
                    seen = (kind, method, path, answer.content)
                    assert answer.status_code == status, seen
                    assert answer.headers["content-type"] == "application/problem+json", seen
                    assert not {"grpc-status", "grpc-message", "x-refusal"} & set(answer.headers), seen
                    assert ("www-authenticate" in answer.headers) is (status == 401), seen
                    if method != "HEAD":
                        assert answer.json()["status"] == status, seen
                        assert int(answer.headers["content-length"]) == len(answer.content), seen
        with inside.edge(stack, None, "client_headers") as url:
            async with httpx.AsyncClient(base_url=url) as http:
                disguised = await http.get("/v1/me", headers={"content-type": "application/grpc"})
                assert (disguised.status_code, disguised.content) == (200, b"")

    async def test_only_listed_origins_may_call_from_a_browser(self, stack: Platform) -> None:
        options = Options(cors_origins=("https://shop.example", "https://other.example", "http://[::1]:3000"))
        with inside.edge(stack, options) as url:
            async with http_client(url) as http:
                ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
                good = await http.options("/v1/orders", headers={"origin": "https://shop.example", **ask})
                assert good.status_code == 200
                assert good.headers["access-control-allow-origin"] == "https://shop.example"
                assert good.headers["access-control-allow-credentials"] == "true"
                assert "idempotency-key" in good.headers["access-control-allow-headers"]
                read = await http.get("/v1/products?limit=1", headers={"origin": "https://shop.example"})
                assert "ratelimit" in read.headers["access-control-expose-headers"]
                for origin in ("https://evil.example", "https://shop.example.evil.example", "null"):
                    bad = await http.options("/v1/orders", headers={"origin": origin, **ask})
                    assert "access-control-allow-origin" not in bad.headers
        with inside.edge(stack, options, "cors") as url:
            async with http_client(url) as http:
                response = await http.options("/v1/orders", headers={"origin": "https://shop.example", **ask})
                assert "access-control-allow-origin" not in response.headers

    async def test_a_page_can_read_every_answer_and_no_cache_gives_it_to_another(self, stack: Platform) -> None:
        """Errors of the edge's own, too; without such a header a browser tells its page only that something failed."""
        shop = "https://shop.example"
        with inside.edge(stack, Options(cors_origins=(shop,))) as url:
            async with http_client(url) as http:
                limited = await failed_logins(http, 21)
                etag = (await http.get("/openapi.yaml")).headers["etag"]
                json_body = {"content-type": "application/json"}
                asked: dict[str, tuple[int, tuple[str, str, dict[str, str], bytes]]] = {
                    "an answer": (200, ("GET", "/v1/products?limit=1", {}, b"")),
                    "compressed": (200, ("GET", "/v1/products?limit=50", {"accept-encoding": "gzip"}, b"")),
                    "what a cache has": (304, ("GET", "/openapi.yaml", {"if-none-match": etag}, b"")),
                    "no token": (401, ("GET", "/v1/me", {}, b"")),
                    "a bad token": (401, ("GET", "/v1/me", {"authorization": "Bearer x"}, b"")),
                    "two tokens": (401, ("GET", "/v1/me", {"authorization": "Bearer x, Bearer y"}, b"")),
                    "no path of ours": (404, ("GET", "/v1/nope", {}, b"")),
                    "an escape": (404, ("GET", "/v1/%41", {}, b"")),
                    "an odd host": (400, ("GET", "/v1/products", {"host": "a@b"}, b"")),
                    "another method": (405, ("DELETE", "/v1/products", {}, b"")),
                    "too large": (413, ("POST", "/v1/auth/login", json_body, b"x" * 70_000)),
                    "the BFF's own": (422, ("POST", "/v1/auth/refresh", json_body, b'{"refresh_token": 1}')),
                    "too often": (429, ("POST", "/v1/auth/login", json_body, b"{}")),
                }
                assert limited[-1].status_code == 429
                for what, (status, (method, path, headers, body)) in asked.items():
                    for origin in (shop, "https://evil.example", None):
                        sent = headers if origin is None else {**headers, "origin": origin}
                        answer = await http.request(method, path, headers=sent, content=body)
                        assert answer.status_code == status, what
                        seen = answer.headers
                        assert "origin" in [name.strip().lower() for name in seen["vary"].split(",")], what
                        granted = {"access-control-allow-origin": [shop], "access-control-allow-credentials": ["true"]}
                        for name, values in granted.items():
                            assert seen.get_list(name) == (values if origin == shop else []), (what, origin)
                        assert ("access-control-expose-headers" in seen) is (origin == shop), (what, origin)
                        if status >= 400:
                            assert seen["content-type"] == "application/problem+json", what
                            assert seen.get_list("cache-control") == ["no-store"], what
        with inside.edge(stack) as url:
            async with http_client(url) as http:
                for path, status in (("/v1/products?limit=1", 200), ("/v1/nope", 404)):
                    answer = await http.get(path, headers={"origin": shop})
                    assert answer.status_code == status
                    assert not {"vary", "access-control-allow-origin"} & set(answer.headers)


class TestProxies:
    async def test_only_a_trusted_proxy_says_who_the_client_is_and_which_request_it_was(self, stack: Platform) -> None:
        said = {"x-forwarded-for": "203.0.113.7", "x-request-id": "01987b0e-5f3c-4c3e-9b1a-3f0d9e6a7b21"}
        with inside.edge(stack, Options(trusted_proxies=("127.0.0.1/32",))) as url:
            async with _from("127.0.0.1", url) as proxy, http_client(url) as other:
                trusted = await proxy.get("/v1/products?limit=1", headers=said)
                untrusted = await other.get("/v1/products?limit=1", headers=said)
                ill_formed = await proxy.get("/v1/products?limit=1", headers={**said, "x-request-id": 'a"b c'})
                await asyncio.sleep(1.2)
            log = next(stack.layout.logs.glob("edge-at-*.log")).read_text(encoding="utf-8")
        lines = {line["request_id"]: line for line in map(json.loads, log.splitlines()) if "request_id" in line}
        assert trusted.headers["x-request-id"] == said["x-request-id"]
        assert lines[said["x-request-id"]]["client"] == "203.0.113.7"
        assert untrusted.headers["x-request-id"] != said["x-request-id"]
        assert lines[untrusted.headers["x-request-id"]]["client"].startswith("127.")
        assert '"' not in ill_formed.headers["x-request-id"]
