"""What holds for every operation alike, taken from the contract itself."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from contract_runtime.operation import Operation
from contracts.bff.v1.client import BackendClient
from contracts.bff.v1.operations import OPERATIONS
from contracts.permissions import ROLE_PERMISSIONS

from conftest import People

NOWHERE = "01987b0e-5f3c-7c3e-9b1a-3f0d9e6a7b21"
PROTECTED = [operation for operation in OPERATIONS if operation.permission]
WITH_BODY = [operation for operation in OPERATIONS if operation.body]
WITH_ID = [operation for operation in OPERATIONS if "{" in operation.path]

# A body that each operation accepts, for the checks that come after validation.
BODIES: dict[str, dict[str, Any]] = {
    "register": {"email": "x@example.com", "password": "a long password", "display_name": "X"},
    "login": {"email": "x@example.com", "password": "wrong"},
    "refreshTokens": {"refresh_token": "x"},
    "updateMe": {"display_name": "X"},
    "changePassword": {"current_password": "wrong", "new_password": "a long password"},
    "createOrder": {"items": [{"product_id": NOWHERE, "quantity": 1}]},
    "payOrder": {"payment_token": "tok_approved"},
    "cancelOrder": {"reason": "x"},
    "shipOrder": {"carrier": "x", "tracking_number": "x"},
    "refundOrder": {"reason": "x"},
    "createProduct": {"sku": "X-1", "name": "x", "price": {"amount_minor": 1, "currency": "EUR"}, "initial_stock": 0},
    "updateProduct": {"name": "x"},
    "adjustStock": {"delta": 1, "reason": "x"},
    "updateUser": {"status": "active"},
}


def name(operation: Operation) -> str:
    return operation.id


def path_of(operation: Operation, identifier: str = NOWHERE) -> str:
    head, _, tail = operation.path.partition("{")
    return head + identifier + tail.partition("}")[2] if tail else head


def headers_for(operation: Operation, client: BackendClient | None) -> dict[str, str]:
    headers = {} if operation.refuses_idempotency_key else {"idempotency-key": str(uuid.uuid4())}
    if client is not None and operation.permission:
        headers["authorization"] = f"Bearer {client.access_token}"
    return headers


def role_with(permission: str | None) -> str:
    return next(role for role, granted in ROLE_PERMISSIONS.items() if permission is None or permission in granted)


def check_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:backend:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    # What Envoy refuses before it has read the headers has an id in the body and in the access log only.
    assert problem["request_id"] == response.headers.get("x-request-id", problem["request_id"])
    assert problem["request_id"]
    return problem


@pytest.mark.parametrize("operation", PROTECTED, ids=name)
async def test_without_a_token_it_is_401(people: People, operation: Operation) -> None:
    response = await people.http.request(operation.method, path_of(operation), json=BODIES.get(operation.id))
    check_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "operation", [o for o in PROTECTED if any(o.permission not in g for g in ROLE_PERMISSIONS.values())], ids=name
)
async def test_with_a_role_that_lacks_the_permission_it_is_403(people: People, operation: Operation) -> None:
    role = next(role for role, granted in ROLE_PERMISSIONS.items() if operation.permission not in granted)
    client = await people.role(role)
    response = await people.http.request(
        operation.method, path_of(operation), json=BODIES.get(operation.id), headers=headers_for(operation, client)
    )
    problem = check_problem(response, 403, "permission-denied")
    assert problem["facts"] == {"permission": operation.permission}


@pytest.mark.parametrize("operation", WITH_ID, ids=name)
@pytest.mark.parametrize("identifier", [NOWHERE, "not-a-uuid", "0", "..", "%00", "%ff", "a" * 2000])
async def test_what_does_not_exist_is_404(people: People, operation: Operation, identifier: str) -> None:
    client = await people.role(role_with(operation.permission))
    response = await people.http.request(
        operation.method,
        path_of(operation, identifier),
        json=BODIES.get(operation.id),
        headers=headers_for(operation, client),
    )
    # "..", resolved as any client would, is another path; there a method may be unknown.
    if identifier == "..":
        assert response.status_code in (401, 404, 405)
    elif identifier == "%00":
        # Refused by the edge's path normalisation, before anything else looks at it.
        check_problem(response, 400, "malformed-request")
    else:
        check_problem(response, 404, "not-found")


@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
async def test_another_method_is_405_and_says_which_are_allowed(people: People, path: str) -> None:
    known = {operation.method for operation in OPERATIONS if operation.path == path}
    operation = next(o for o in OPERATIONS if o.path == path)
    for method in sorted({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - known):
        response = await people.http.request(method, path_of(operation))
        check_problem(response, 405, "method-not-allowed")
        heads = {"HEAD"} if "GET" in known else set()
        assert {allowed.strip() for allowed in response.headers["allow"].split(",")} == known | heads


async def test_a_method_that_http_does_not_know_is_400(people: People) -> None:
    check_problem(await people.http.request("BREW", "/v1/products"), 400, "malformed-request")


@pytest.mark.parametrize("operation", OPERATIONS, ids=name)
async def test_an_answer_the_caller_cannot_accept_is_406(people: People, operation: Operation) -> None:
    client = await people.role(role_with(operation.permission))
    headers = {**headers_for(operation, client), "accept": "image/png, application/json;q=0"}
    response = await people.http.request(
        operation.method, path_of(operation), json=BODIES.get(operation.id), headers=headers
    )
    check_problem(response, 406, "not-acceptable")


@pytest.mark.parametrize("operation", WITH_BODY, ids=name)
async def test_bodies_that_break_the_contract(people: People, operation: Operation) -> None:
    client = await people.role(role_with(operation.permission))
    url = path_of(operation)

    async def send(content: bytes, content_type: str = "application/json", coding: str = "") -> httpx.Response:
        headers = {**headers_for(operation, client), "content-type": content_type}
        headers |= {"content-encoding": coding} if coding else {}
        return await people.http.request(operation.method, url, content=content, headers=headers)

    for malformed in (b"", b"{", b"{]", b'{"a":', b"\xff\xfe", b'"\xff"', b'{"a":1}{"b":2}', b"[" * 20000, b"nul"):
        check_problem(await send(malformed), 400, "malformed-request")
    check_problem(await send(b"{}", "text/plain"), 415, "unsupported-media-type")
    check_problem(await send(b"{}", "application/json; charset=latin-1"), 415, "unsupported-media-type")
    check_problem(await send(b'{"x": 1, "y": {"a": 1, "a": 1}}'), 400, "malformed-request")
    for coding in ("gzip", "identity, gzip", "br"):
        compressed = await send(b"{}", coding=coding)
        check_problem(compressed, 415, "unsupported-content-coding")
        assert compressed.headers["accept-encoding"] == "identity"
    check_problem(await send(b'{"x":"' + b"a" * 70_000 + b'"}'), 413, "too-large")
    for invalid in (b"[]", b"null", b"1", b'"x"', b'{"surprise": 1}'):
        problem = check_problem(await send(invalid), 422, "invalid-argument")
        assert problem["errors"][0].keys() == {"pointer", "detail"}


@pytest.mark.parametrize(
    ("operation_id", "body", "pointer"),
    [
        ("createOrder", {"items": []}, "/items"),
        ("createOrder", {"items": [{"product_id": NOWHERE, "quantity": 0}]}, "/items/0/quantity"),
        ("createOrder", {"items": [{"product_id": NOWHERE, "quantity": 10**400}]}, "/items/0/quantity"),
        ("createOrder", {"items": [{"product_id": NOWHERE, "quantity": 1.5}]}, "/items/0/quantity"),
        ("createOrder", {"items": [{"product_id": "x", "quantity": 1}]}, "/items/0/product_id"),
        ("createOrder", {"items": [{"product_id": NOWHERE + "\n", "quantity": 1}]}, "/items/0/product_id"),
        ("createOrder", {"items": [{"quantity": 1}]}, "/items/0/product_id"),
        ("createOrder", {"items": [{"product_id": NOWHERE, "quantity": 1, "price": 0}]}, "/items/0/price"),
        (
            "createProduct",
            {**BODIES["createProduct"], "price": {"amount_minor": 1, "currency": "EUR", "x": 1}},
            "/price/x",
        ),
        ("createOrder", {"items": [{"product_id": NOWHERE, "quantity": 1}] * 51}, "/items"),
        ("register", {"email": "no at", "password": "a long password", "display_name": "X"}, "/email"),
        ("register", {"email": "x@example.com", "password": "short", "display_name": "X"}, "/password"),
        ("register", {"email": "x@example.com", "password": "a long\0password", "display_name": "X"}, "/password"),
        ("register", {"email": "x@example.com", "password": "a long password", "display_name": ""}, "/display_name"),
        ("updateMe", {"display_name": "a\0b"}, "/display_name"),
        ("updateMe", {"display_name": None}, "/display_name"),
        ("payOrder", {"payment_token": "4111111111111111"}, "/payment_token"),
        ("updateUser", {"roles": ["emperor"]}, "/roles/0"),
        ("updateUser", {}, ""),
        ("updateProduct", {}, ""),
        (
            "createProduct",
            {**BODIES["createProduct"], "price": {"amount_minor": -1, "currency": "EUR"}},
            "/price/amount_minor",
        ),
        (
            "createProduct",
            {**BODIES["createProduct"], "price": {"amount_minor": 1, "currency": "eur"}},
            "/price/currency",
        ),
    ],
)
async def test_an_invalid_field_is_422_and_named_by_its_pointer(
    people: People, operation_id: str, body: dict[str, Any], pointer: str
) -> None:
    operation = next(o for o in OPERATIONS if o.id == operation_id)
    client = await people.role(role_with(operation.permission))
    response = await people.http.request(
        operation.method, path_of(operation), json=body, headers=headers_for(operation, client)
    )
    problem = check_problem(response, 422, "invalid-argument")
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=101", "limit=x", "limit=1e3", "limit=", "limit=9" + "9" * 400, "cursor=" + "a" * 513,
        "cursor=%00", "cursor=%ff", "q=", "q=%00", "q=" + "a" * 101, "limit=-1",
    ],
)  # fmt: skip
async def test_an_invalid_query_is_422(people: People, query: str) -> None:
    response = await people.http.get(f"/v1/products?{query}")
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.refuses_idempotency_key], ids=name)
async def test_a_key_that_would_promise_nothing_is_refused(people: People, operation: Operation) -> None:
    client = await people.role(role_with(operation.permission))
    headers = {**headers_for(operation, client), "idempotency-key": str(uuid.uuid4())}
    response = await people.http.request(
        operation.method, path_of(operation), json=BODIES.get(operation.id), headers=headers
    )
    problem = check_problem(response, 400, "idempotency-key-refused")
    assert problem["errors"][0]["header"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("operation", "header"),
    [
        (operation, header)
        for operation in OPERATIONS
        for header in ("if-match", "if-none-match")
        if not operation.headers or header not in operation.headers.__struct_encode_fields__
    ],
    ids=lambda value: getattr(value, "id", value),
)
async def test_a_condition_that_is_not_evaluated_is_refused(people: People, operation: Operation, header: str) -> None:
    """And nothing is done: whoever says `If-Match: "3"` relies on it (RFC 9110, 13.1)."""
    client = await people.role(role_with(operation.permission))
    headers = {**headers_for(operation, client), header: '"3"'}
    response = await people.http.request(
        operation.method, path_of(operation), json=BODIES.get(operation.id), headers=headers
    )
    problem = check_problem(response, 400, "condition-refused")
    assert problem["errors"][0]["header"].lower() == header


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if not (o.anonymous and o.method == "GET")], ids=name)
async def test_what_is_somebodys_own_is_kept_by_no_cache(people: People, operation: Operation) -> None:
    client = await people.role(role_with(operation.permission))
    response = await people.http.request(
        operation.method, path_of(operation), json=BODIES.get(operation.id), headers=headers_for(operation, client)
    )
    assert response.headers["cache-control"] == "no-store", response.text


async def test_a_number_without_fraction_is_an_integer(people: People) -> None:
    client, product = await people.role("customer"), await people.product()
    headers = {"authorization": f"Bearer {client.access_token}", "content-type": "application/json"}
    for quantity, status in (("1.0", 201), ("2e0", 201), ("1.5", 422), ("1e400", 422)):
        content = f'{{"items": [{{"product_id": "{product.id}", "quantity": {quantity}}}]}}'
        headers["idempotency-key"] = str(uuid.uuid4())
        response = await people.http.post("/v1/orders", content=content, headers=headers)
        assert response.status_code == status, response.text
        if status == 422:
            assert response.json()["errors"][0]["pointer"] == "/items/0/quantity"


@pytest.mark.parametrize("query", ["created_from=0.5", "created_from=1767225600", "created_from=2026-01-01", "created_before=",
                                   "created_from=2026-01-01%2000:00:00Z", "status=x", "created_from=yesterday", "created_from=2026-13-01T00:00:00Z",
                                   "created_before=0000-00-00T00:00:00Z"])  # fmt: skip
async def test_an_invalid_filter_is_422(people: People, query: str) -> None:
    client = await people.role("customer")
    headers = {"authorization": f"Bearer {client.access_token}"}
    problem = check_problem(await people.http.get(f"/v1/orders?{query}", headers=headers), 422, "invalid-argument")
    assert problem["errors"][0]["parameter"] == query.partition("=")[0]


async def test_a_search_that_is_refused_is_named_as_it_was_sent(people: People) -> None:
    """By the parameter, and not by what a service calls it."""
    problem = check_problem(await people.http.get("/v1/products?q=a%00b"), 422, "invalid-argument")
    assert problem["errors"][0]["parameter"] == "q"


@pytest.mark.parametrize("user_id", ["x", "", NOWHERE + "%0A", NOWHERE.replace("-", "")])
async def test_an_invalid_user_filter_is_422(people: People, user_id: str) -> None:
    client = await people.role("support")
    headers = {"authorization": f"Bearer {client.access_token}"}
    check_problem(
        await people.http.get(f"/v1/admin/orders?user_id={user_id}", headers=headers), 422, "invalid-argument"
    )


@pytest.mark.parametrize("query", ["created_from=0001-01-01T00:00:00Z", "created_from=9999-12-31T23:59:59Z",
                                   "created_from=2026-01-01T00:00:00%2B14:00", "created_from=0001-01-01T00:00:00%2B14:00",
                                   "created_from=2026-01-01T00:00:00"])  # fmt: skip
async def test_an_extreme_time_is_no_server_error(people: People, query: str) -> None:
    client = await people.role("customer")
    headers = {"authorization": f"Bearer {client.access_token}"}
    assert (await people.http.get(f"/v1/orders?{query}", headers=headers)).status_code in (200, 422)


@pytest.mark.parametrize(
    ("if_match", "status"),
    [('"x"', 412), ('""', 412), ('"99999999999999999999"', 412), ('W/"1"', 412), ('"abc", "999"', 412),
     ("*", 200), ('"1"', 200), ('"7", "1" ,W/"2"', 200)],
)  # fmt: skip
async def test_an_if_match_is_compared_strongly(people: People, if_match: str, status: int) -> None:
    client, _ = await people.newcomer()
    headers = {"authorization": f"Bearer {client.access_token}", "if-match": if_match}
    response = await people.http.patch("/v1/me", json={"display_name": "X"}, headers=headers)
    assert response.status_code == status, response.text


async def test_a_missing_resource_comes_before_its_version(people: People) -> None:
    client = await people.role("support")
    headers = {"authorization": f"Bearer {client.access_token}", "if-match": 'W/"1"'}
    response = await people.http.post(f"/v1/admin/orders/{NOWHERE}/delivery", headers=headers)
    check_problem(response, 404, "not-found")


async def test_an_if_none_match_of_many_tags_is_evaluated(people: People) -> None:
    product = await people.product()
    url = f"/v1/products/{product.id}"
    tag = (await people.http.get(url)).headers["etag"]
    for tags in ("*", tag, "W/" + tag, ", ".join(f'"x{i}"' for i in range(200)) + f", W/{tag}"):
        assert (await people.http.get(url, headers={"if-none-match": tags})).status_code == 304
    assert (await people.http.get(url, headers={"if-none-match": '"x,y"'})).status_code == 200


@pytest.mark.parametrize("prefix", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
async def test_the_scheme_of_a_token_has_no_case(people: People, prefix: str) -> None:
    client = await people.role("customer")
    response = await people.http.get("/v1/me/overview", headers={"authorization": prefix + (client.access_token or "")})
    assert response.status_code == 200, response.text


async def test_credentials_that_nobody_asked_for_are_not_looked_at(people: People) -> None:
    digest = {"authorization": 'Digest a="1", b="2"'}
    assert (await people.http.get("/v1/products?limit=1", headers=digest)).status_code == 200
    check_problem(await people.http.get("/v1/me", headers=digest), 401, "unauthenticated")


@pytest.mark.parametrize("if_match", ["3", "W/x", "a" * 41])
async def test_an_if_match_that_is_no_etag_is_422(people: People, if_match: str) -> None:
    client = await people.role("customer")
    headers = {"authorization": f"Bearer {client.access_token}", "if-match": if_match}
    response = await people.http.patch("/v1/me", json={"display_name": "X"}, headers=headers)
    problem = check_problem(response, 422, "invalid-argument")
    assert problem["errors"][0]["header"] == "If-Match"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/orders/", "/v1/nope", "//v1/nope", "/v1/products/../nope",
                                  "/v1/me/overview/x", "/%2e%2e/etc/passwd", "/v1/products%2f", "/v1/%c0%af"])  # fmt: skip
async def test_an_unknown_route_is_a_404_problem(people: People, path: str) -> None:
    response = await people.http.get(path)
    assert response.status_code in (400, 404)
    assert response.headers["content-type"] == "application/problem+json"


async def test_the_contract_and_a_reference_that_works_offline_are_served(people: People) -> None:
    contract = await people.http.get("/openapi.yaml")
    assert contract.headers["content-type"].startswith("application/yaml")
    assert "operationId: createOrder" in contract.text
    events = await people.http.get("/asyncapi.json")
    assert events.headers["content-type"] == "application/json"
    assert "order.v1.OrderPlaced" in events.json()["channels"]
    page = await people.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "SwaggerUIBundle" in page.text
    # Everything is in the page: it names no other host to load from.
    assert "<script src" not in page.text
    assert '<link rel="stylesheet"' not in page.text


async def test_whom_to_tell_of_a_vulnerability_is_served(people: People) -> None:
    answer = await people.http.get("/.well-known/security.txt")
    # RFC 9116, 3: the type and its parameter.
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    fields = dict(line.split(": ", 1) for line in answer.text.splitlines())
    assert fields.keys() == {"Contact", "Expires"}
    assert datetime.fromisoformat(fields["Expires"]) > datetime.now(UTC)


async def test_a_request_id_is_on_every_answer_and_a_clients_own_is_replaced(people: People) -> None:
    first = await people.http.get("/v1/products?limit=1", headers={"x-request-id": "my-request-12345"})
    second = await people.http.get("/v1/nope")
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(uuid.UUID(request_id) for request_id in ids)


async def test_public_https_speaks_http2(people: People) -> None:
    url = people.platform.status["endpoints"]["public_tls"]
    certificate = people.platform.layout.certificates / "public" / "ca.crt"
    import ssl

    async with httpx.AsyncClient(http2=True, verify=ssl.create_default_context(cafile=str(certificate))) as client:
        response = await client.get(f"{url}/v1/products?limit=1")
    assert (response.status_code, response.http_version) == (200, "HTTP/2")
