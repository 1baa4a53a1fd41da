from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from dataclasses import replace

import httpx
import jwt
import pytest
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from contracts.user.v1 import session_pb2
from user.repository.signing_keys import load_keys

from conftest import People, http_client
from devstack import keys


async def refused(awaitable: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


def registration(email: str) -> models.RegisterRequest:
    return models.RegisterRequest(email=email, password="a long enough password", display_name="Ada")


async def test_an_email_is_taken_regardless_of_case(people: People) -> None:
    client, name = BackendClient(people.http), uuid.uuid4().hex
    created = await client.register(registration(f"{name}@example.com"))
    assert created.status == 201
    assert created.data.email == f"{name}@example.com"
    assert created.data.roles == ["customer"]
    error = await refused(client.register(registration(f"{name.upper()}@EXAMPLE.com")))
    assert (error.status, error.problem and error.problem.type) == (409, "urn:backend:problem:email-taken")


async def test_a_login_gives_an_es256_token_that_the_published_keys_verify(people: People) -> None:
    client, _ = await people.newcomer()
    jwks = (await client.get_jwks()).data
    token = client.access_token or ""
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(k for k in jwks.keys if k.kid == kid)
    public = jwt.PyJWK({"kty": key.kty, "crv": key.crv, "x": key.x, "y": key.y, "kid": kid, "alg": "ES256"})
    claims = jwt.decode(token, public, algorithms=["ES256"], audience="backend-api", issuer="https://backend.local")
    assert claims.keys() == {"iss", "aud", "sub", "sid", "roles", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == 300


async def test_a_wrong_email_and_a_wrong_password_look_the_same(people: People) -> None:
    _, login = await people.newcomer()
    anonymous = BackendClient(people.http)
    answers = [
        await refused(anonymous.login(models.LoginRequest(email=email, password="not the password")))
        for email in (login.email, f"{uuid.uuid4()}@example.com")
    ]
    seen = []
    for error in answers:
        assert error.problem is not None
        seen.append((error.status, error.problem.type, error.problem.title, error.problem.detail, set(error.headers)))
    assert seen[0] == seen[1]
    assert seen[0][0] == 401


async def test_a_wrong_email_takes_the_time_of_a_wrong_password(people: People) -> None:
    async def seconds(email: str) -> float:
        started = time.perf_counter()
        await refused(BackendClient(people.http).login(models.LoginRequest(email=email, password="wrong")))
        return time.perf_counter() - started

    logins = [(await people.newcomer())[1] for _ in range(4)]
    known, unknown = [], []
    for login in logins:
        for _ in range(3):
            known.append(await seconds(login.email))
            unknown.append(await seconds(f"{uuid.uuid4()}@example.com"))
    ratio = statistics.median(unknown) / statistics.median(known)
    # Without the decoy hash the ratio is below 0.3.
    assert 0.5 < ratio < 2.0


async def test_five_failures_slow_an_account_down_and_its_owner_gets_in_again(people: People) -> None:
    client, login = await people.newcomer()
    wrong = models.LoginRequest(email=login.email.upper(), password="wrong")
    assert [(await refused(client.login(wrong))).status for _ in range(5)] == [401] * 5
    error = await refused(client.login(login))
    assert error.status == 429
    wait = int(error.headers["retry-after"])
    assert 1 <= wait <= 2
    await asyncio.sleep(wait)
    assert (await client.login(login)).status == 200
    # A success forgets the failures.
    assert [(await refused(client.login(wrong))).status for _ in range(2)] == [401] * 2


async def test_delays_grow_and_an_unknown_account_is_slowed_alike(people: People) -> None:
    client = BackendClient(people.http)
    wrong = models.LoginRequest(email=f"{uuid.uuid4()}@example.com", password="wrong")
    for _ in range(5):
        assert (await refused(client.login(wrong))).status == 401
    await asyncio.sleep(1.1)
    assert (await refused(client.login(wrong))).status == 401
    error = await refused(client.login(wrong))
    assert error.status == 429
    assert int(error.headers["retry-after"]) == 2


async def test_a_burst_of_simultaneous_guesses_is_slowed_like_a_sequence(people: People) -> None:
    _, login = await people.newcomer()
    wrong = models.LoginRequest(email=login.email, password="wrong")
    errors = await asyncio.gather(*(refused(BackendClient(people.http).login(wrong)) for _ in range(12)))
    statuses = sorted(error.status for error in errors)
    assert statuses == [401] * 5 + [429] * 7


async def refresh(people: People, token: object, agent: str = "one") -> httpx.Response:
    """By a client of that name."""
    body = {"refresh_token": token}
    return await people.http.post("/v1/auth/refresh", json=body, headers={"user-agent": agent})


async def test_a_refresh_token_works_once_and_its_second_use_ends_the_session(people: People) -> None:
    _, login = await people.newcomer()
    client = BackendClient(people.http)
    first = (await client.login(login)).data
    second = (await refresh(people, first.refresh_token)).json()
    client.access_token = second["access_token"]
    assert (await client.get_me()).status == 200
    reused = await refresh(people, first.refresh_token, "another")
    assert (reused.status_code, reused.json()["type"]) == (401, "urn:backend:problem:invalid-refresh-token")
    assert (await refused(client.get_me())).status == 401
    assert (await refresh(people, second["refresh_token"])).status_code == 401


async def test_a_repeated_refresh_of_the_same_client_has_the_same_successor(people: People) -> None:
    """Two tabs, or an answer that was lost."""
    _, login = await people.newcomer()
    first = (await BackendClient(people.http).login(login)).data
    answers = await asyncio.gather(*(refresh(people, first.refresh_token) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    (successor,) = {answer.json()["refresh_token"] for answer in answers}
    assert (await refresh(people, successor)).status_code == 200
    # A generation further, the first is spent for good.
    assert (await refresh(people, first.refresh_token)).status_code == 401
    assert (await refresh(people, successor)).status_code == 401


async def test_another_address_is_another_client_unless_it_has_the_devices_cookie(people: People) -> None:
    _, login = await people.newcomer()
    async with http_client(people.platform.url) as elsewhere:
        first = (await BackendClient(people.http).login(login)).data
        assert (await refresh(people, first.refresh_token)).status_code == 200
        repeated = await refresh(replace(people, http=elsewhere), first.refresh_token)
        assert repeated.status_code == 401

        answer = await BackendClient(people.http).login(login, x_client="web")
        both = "; ".join(c.split(";")[0] for c in answer.headers.get_list("set-cookie"))
        assert "__Secure-device=" in both
        people.http.cookies.clear()
        successors = []
        for client in (people.http, elsewhere):
            response = await client.post("/v1/auth/refresh", json={}, headers={"cookie": both})
            assert response.status_code == 200
            successors.append(response.headers["set-cookie"].split(";")[0])
            client.cookies.clear()
        assert successors[0] == successors[1]


async def test_of_many_clients_that_refresh_at_once_at_most_one_wins(people: People) -> None:
    _, login = await people.newcomer()
    pair = (await BackendClient(people.http).login(login)).data
    answers = await asyncio.gather(*(refresh(people, pair.refresh_token, str(number)) for number in range(20)))
    assert sorted(answer.status_code for answer in answers)[1:] == [401] * 19


@pytest.mark.parametrize("token", ["", "x", "A" * 64, "not base64 !", "é"])
async def test_what_is_no_refresh_token_is_refused(people: People, token: str) -> None:
    error = await refused(BackendClient(people.http).refresh_tokens(models.RefreshRequest(refresh_token=token)))
    assert error.status == 401


COOKIE = "__Secure-refresh_token"


async def web_login(people: People) -> tuple[str, str]:
    """A new web client's cookie, as it sends it, and its access token."""
    _, login = await people.newcomer()
    answer = await BackendClient(people.http).login(login, x_client="web")
    assert not isinstance(answer.data.refresh_token, str)
    (cookie,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith(f"{COOKIE}=")]
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/v1/auth", "Max-Age=1209"):
        assert attribute.lower() in cookie.lower()
    people.http.cookies.clear()
    return cookie.split(";")[0], answer.data.access_token


@pytest.mark.parametrize("client", ["web", "mobile", "other", None])
async def test_what_came_as_a_cookie_goes_as_a_cookie_only(people: People, client: str | None) -> None:
    cookie, _ = await web_login(people)
    headers = {"cookie": cookie} | ({} if client is None else {"x-client": client})
    response = await people.http.post("/v1/auth/refresh", json={}, headers=headers)
    assert response.status_code == 200
    assert "refresh_token" not in response.json()
    assert response.headers["set-cookie"].split(";")[0] != cookie
    people.http.cookies.clear()


FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://{host}", "sec-fetch-site": "same-site"},
    {"origin": "https://{host}"},
    {"origin": "http://{host}.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
]


@pytest.mark.parametrize("path", ["/v1/auth/refresh", "/v1/auth/logout"])
@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_foreign_page_uses_no_cookie(people: People, path: str, headers: dict[str, str]) -> None:
    cookie, token = await web_login(people)
    host = people.http.base_url.netloc.decode()
    sent = {"cookie": cookie} | {name: value.replace("{host}", host) for name, value in headers.items()}
    response = await people.http.post(path, json={}, headers=sent)
    assert (response.status_code, response.json()["type"]) == (403, "urn:backend:problem:foreign-origin")
    assert "set-cookie" not in response.headers
    assert (await BackendClient(people.http, token).get_me()).status == 200


@pytest.mark.parametrize("headers", [{"origin": "http://{host}"}, {"sec-fetch-site": "same-origin"}, {}])
async def test_our_own_page_uses_its_cookie(people: People, headers: dict[str, str]) -> None:
    cookie, _ = await web_login(people)
    host = people.http.base_url.netloc.decode()
    sent = {"cookie": cookie} | {name: value.replace("{host}", host) for name, value in headers.items()}
    assert (await people.http.post("/v1/auth/refresh", json={}, headers=sent)).status_code == 200
    people.http.cookies.clear()


@pytest.mark.parametrize("authorization", [None, "Bearer x.y.z", "Digest a"])
async def test_logout_by_cookie_needs_no_access_token(people: People, authorization: str | None) -> None:
    cookie, token = await web_login(people)
    headers = {"cookie": cookie} | ({} if authorization is None else {"authorization": authorization})
    response = await people.http.post("/v1/auth/logout", headers=headers)
    assert response.status_code == 204
    cleared = response.headers["set-cookie"]
    assert cleared.startswith(f'{COOKIE}="";')
    assert "max-age=0" in cleared.lower()
    assert (await refused(BackendClient(people.http, token).get_me())).status == 401
    assert (await people.http.post("/v1/auth/refresh", json={}, headers={"cookie": cookie})).status_code == 401


def expired(people: People, token: str) -> str:
    """The token as it will be: the same session's, rightly signed, and over."""
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    (key,) = [k for k in load_keys(keys.directory(people.platform.layout)) if k.kid == header["kid"]]
    claims |= {"iat": claims["iat"] - 4000, "exp": claims["exp"] - 4000}
    return jwt.encode(claims, key.private, algorithm="ES256", headers={"kid": header["kid"]})


async def test_logout_by_cookie_ends_the_session_of_an_access_token_that_has_expired(people: People) -> None:
    cookie, token = await web_login(people)
    bearer = {"authorization": f"Bearer {expired(people, token)}"}
    assert (await people.http.get("/v1/me", headers=bearer)).status_code == 401
    assert (await people.http.post("/v1/auth/logout", headers=bearer)).status_code == 401
    response = await people.http.post("/v1/auth/logout", headers={"cookie": cookie, **bearer})
    assert response.status_code == 204
    assert "max-age=0" in response.headers["set-cookie"].lower()
    assert (await refused(BackendClient(people.http, token).get_me())).status == 401


@pytest.mark.parametrize("value", ["garbage", "A" * 70, "", "=", '""'])
async def test_a_cookie_that_is_no_token_is_cleared_and_ends_nothing(people: People, value: str) -> None:
    _, token = await web_login(people)
    for _ in range(2):
        response = await people.http.post("/v1/auth/logout", headers={"cookie": f"{COOKIE}={value}"})
        assert response.status_code == 204
        assert "max-age=0" in response.headers["set-cookie"].lower()
    assert (await BackendClient(people.http, token).get_me()).status == 200


async def test_of_two_cookies_none_is_exchanged_and_logging_out_ends_the_sessions_of_both(people: People) -> None:
    """Another host of our site may have set one: nothing says which is ours."""
    (mine, my_token), (theirs, their_token) = await web_login(people), await web_login(people)
    both = {"cookie": f"{theirs}; {mine}"}
    response = await people.http.post("/v1/auth/refresh", json={}, headers=both)
    assert (response.status_code, response.json()["type"]) == (401, "urn:backend:problem:invalid-refresh-token")
    assert "set-cookie" not in response.headers
    for token in (my_token, their_token):
        assert (await BackendClient(people.http, token).get_me()).status == 200
    assert (await people.http.post("/v1/auth/logout", headers=both)).status_code == 204
    for token in (my_token, their_token):
        assert (await refused(BackendClient(people.http, token).get_me())).status == 401


async def test_logout_with_neither_is_401(people: People) -> None:
    assert (await people.http.post("/v1/auth/logout")).status_code == 401
    client, _ = await people.newcomer()
    assert (await client.logout()).status == 204
    assert (await refused(client.logout())).status == 401


async def test_logout_bites_on_the_next_request(people: People) -> None:
    client, _ = await people.newcomer()
    assert (await client.logout()).status == 204
    headers = {"authorization": f"Bearer {client.access_token}"}
    for path in ("/v1/me", "/v1/orders", "/v1/me/sessions"):
        answer = await people.http.get(path, headers=headers)
        assert answer.status_code == 401
        # "expired, revoked, malformed, or invalid for other reasons" (RFC 6750, 3.1).
        assert answer.headers["www-authenticate"] == 'Bearer realm="backend", error="invalid_token"'


async def test_a_password_change_ends_all_other_sessions(people: People) -> None:
    client, login = await people.newcomer()
    other = await people.log_in(login)
    change = models.ChangePasswordRequest(current_password=login.password, new_password="another long password")
    assert (await client.change_password(change)).status == 204
    assert (await client.get_me()).status == 200
    assert (await refused(other.get_me())).status == 401
    assert (await refused(client.login(login))).status == 401
    renewed = models.LoginRequest(email=login.email, password="another long password")
    assert (await client.login(renewed)).status == 200


@pytest.mark.parametrize("password", ["trialtrial", " " * 10, "Password123!", "Backend-2026", "\u0430" * 128])
async def test_a_password_that_is_guessed_first_is_refused_with_its_rule(people: People, password: str) -> None:
    client, login = await people.newcomer()
    register = models.RegisterRequest(email=f"{uuid.uuid4()}@example.com", password=password, display_name="Ada")
    change = models.ChangePasswordRequest(current_password=login.password, new_password=password)
    for awaitable, pointer in (
        (client.register(register), "/password"),
        (client.change_password(change), "/new_password"),
    ):
        error = await refused(awaitable)
        assert error.status == 422
        assert error.problem is not None
        (violation,) = error.problem.errors or []
        assert violation.pointer == pointer
        assert violation.detail.startswith("must be more than ")


async def test_a_wrong_current_password_changes_nothing(people: People) -> None:
    client, login = await people.newcomer()
    change = models.ChangePasswordRequest(current_password="wrong", new_password="another long password")
    assert (await refused(client.change_password(change))).status == 401
    assert (await client.login(login)).status == 200


async def test_disabling_a_user_bites_on_the_next_request_and_enabling_revives_no_session(people: People) -> None:
    client, login = await people.newcomer()
    admin = await people.role("admin")
    me = (await client.get_me()).data
    await admin.update_user(me.id, models.UpdateUserRequest(status="disabled"))
    assert (await refused(client.get_me())).status == 401
    assert (await refused(client.login(login))).status == 401
    await admin.update_user(me.id, models.UpdateUserRequest(status="active"))
    assert (await refused(client.get_me())).status == 401
    assert (await client.login(login)).status == 200


async def test_a_role_given_is_in_the_next_token_and_one_taken_bites_on_the_next_request(people: People) -> None:
    client, login = await people.newcomer()
    admin = await people.role("admin")
    me = (await client.get_me()).data
    assert (await refused(client.list_all_orders())).status == 403
    await admin.update_user(me.id, models.UpdateUserRequest(roles=["customer", "support"]))
    # Whoever holds a token may do what it says: only a new one says more (services verify it themselves).
    assert (await refused(client.list_all_orders())).status == 403
    client = await people.log_in(login)
    assert (await client.list_all_orders(limit=1)).status == 200
    await admin.update_user(me.id, models.UpdateUserRequest(roles=["customer"]))
    assert (await refused(client.list_all_orders())).status == 403


async def test_sessions_are_listed_with_the_current_one_marked_and_can_be_ended(people: People) -> None:
    client, login = await people.newcomer()
    other = await people.log_in(login)
    sessions = (await client.list_my_sessions()).data.items
    assert len(sessions) == 2
    assert [session.current for session in sessions] == [False, True]
    (own,) = {session.address for session in sessions}
    assert own.startswith("127.")
    assert (await client.revoke_my_session(sessions[0].id)).status == 204
    assert (await refused(other.get_me())).status == 401
    assert (await refused(client.revoke_my_session(sessions[0].id))).status == 404
    assert (await client.get_me()).status == 200


async def test_a_use_of_a_session_is_seen_when_the_request_has_been_answered(people: People) -> None:
    client, _ = await people.newcomer()
    (session,) = (await client.list_my_sessions()).data.items
    key, before = f"session:{session.id}", time.time() * 1000
    async with people.platform.valkey() as valkey:

        async def kept() -> session_pb2.SessionRecord:
            raw = await valkey.get(key)
            assert isinstance(raw, bytes)
            return session_pb2.SessionRecord.FromString(raw)

        for _ in range(12):
            record = await kept()
            record.last_seen_at_ms -= 61_000
            await valkey.set(key, record.SerializeToString(), keepttl=True)
            assert (await client.get_me()).status == 200
            assert (await kept()).last_seen_at_ms >= before - 1000


async def test_nobody_ends_somebody_elses_session(people: People) -> None:
    victim, _ = await people.newcomer()
    attacker, _ = await people.newcomer()
    session = (await victim.list_my_sessions()).data.items[0]
    assert (await refused(attacker.revoke_my_session(session.id))).status == 404
    assert (await victim.get_me()).status == 200


async def test_an_admin_ends_all_sessions_of_a_user(people: People) -> None:
    client, _ = await people.newcomer()
    me = (await client.get_me()).data
    admin = await people.role("admin")
    assert (await admin.revoke_user_sessions(me.id)).status == 204
    assert (await refused(client.get_me())).status == 401
    assert (await refused(admin.revoke_user_sessions(str(uuid.uuid4())))).status == 404


SPELLINGS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tampered(token: str) -> str:
    head, body, signature = token.split(".")
    return ".".join((head, body, ("A" if signature[0] != "A" else "B") + signature[1:]))


async def test_tokens_that_are_not_ours_are_refused(people: People) -> None:
    client, _ = await people.newcomer()
    token = client.access_token or ""
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = [
        "x",
        # The same bytes in another spelling.
        token[:-1] + SPELLINGS[SPELLINGS.index(token[-1]) ^ 1],
        token + "=",
        tampered(token),
        jwt.encode(claims, None, algorithm="none"),  # type: ignore[arg-type]
        jwt.encode(claims, "s" * 32, algorithm="HS256", headers={"kid": jwt.get_unverified_header(token)["kid"]}),
        token.rsplit(".", 1)[0] + ".",
    ]
    for candidate in forged:
        response = await people.http.get("/v1/me", headers={"authorization": f"Bearer {candidate}"})
        assert response.status_code == 401, candidate
        assert response.headers["www-authenticate"].startswith("Bearer")
    for header in ("Basic YTpi", token, f"Bearer {token}, Bearer {token}"):
        assert (await people.http.get("/v1/me", headers={"authorization": header})).status_code == 401
    double = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    assert (await people.http.get("/v1/me", headers=double)).status_code == 401


async def test_identity_headers_of_a_client_mean_nothing(people: People) -> None:
    admin = (await (await people.role("admin")).get_me()).data
    headers = {"x-caller-id": admin.id, "x-caller-roles": "admin", "x-caller-session": str(uuid.uuid4())}
    assert (await people.http.get("/v1/admin/users", headers=headers)).status_code == 401
