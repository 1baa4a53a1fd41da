"""Accounts and tokens: what clients present goes to the User service, what it grants goes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis import context
from chassis.errors import ServiceError
from chassis.http.answers import empty_answer, json_answer
from chassis.http.application import Call
from chassis.http.parsing import read_cookies
from chassis.http.request import Request
from chassis.tokens import TokenVerifier
from contracts.bff.v1 import models, operations
from contracts.user.v1 import session_pb2, user_pb2
from msgspec import UNSET
from starlette.responses import Response

from bff import shapes
from bff.authentication import Principal, bearer_token, calling, client_address
from bff.origins import Origins

if TYPE_CHECKING:
    from contracts.user.v1.session_pb2_grpc import SessionServiceAsyncStub
    from contracts.user.v1.user_pb2_grpc import UserServiceAsyncStub

# Browsers take a cookie of this name from a secure page only (RFC 6265bis, section 4.1.3).
REFRESH_COOKIE = "__Secure-refresh_token"
DEVICE_COOKIE = "__Secure-device"
# Cookies are sent to the operations that use them and to no other.
_COOKIE_PATH = "/v1/auth"
# How many cookies of one name a logout looks at: ours, and those that other hosts of our site may have set.
_MOST_COOKIES = 8
# As long as browsers keep any (RFC 6265bis, section 5.5).
_DEVICE_SECONDS = 400 * 24 * 3600


class AuthHandlers:
    """register, login, refresh, logout."""

    def __init__(
        self, users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, tokens: TokenVerifier, origins: Origins
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._tokens = tokens
        self._origins = origins

    async def register(self, body: models.RegisterRequest) -> Response:
        """POST /v1/auth/register."""
        request = user_pb2.RegisterRequest(email=body.email, password=body.password, display_name=body.display_name)
        user = await self._users.Register(request)
        return json_answer(shapes.user(user), status=201, version=user.version)

    async def login(
        self, call: Call[Principal], body: models.LoginRequest, headers: operations.LoginHeaders
    ) -> Response:
        """POST /v1/auth/login."""
        request = session_pb2.LogInRequest(email=body.email, password=body.password, client=_client(call.request))
        grant = await self._sessions.LogIn(request)
        return _answer(grant, web=headers.x_client == "web")

    async def refresh_tokens(
        self, call: Call[Principal], body: models.RefreshRequest, headers: operations.RefreshTokensHeaders
    ) -> Response:
        """POST /v1/auth/refresh. A token that came as a cookie, which no script can read, is answered as a cookie."""
        by_cookie = body.refresh_token is UNSET
        if by_cookie:
            self._origins.check(call.request)
        presented = _only_cookie(call.request, REFRESH_COOKIE) if body.refresh_token is UNSET else body.refresh_token
        request = session_pb2.RefreshRequest(refresh_token=presented, client=_client(call.request))
        # The same client may repeat the exchange and gets the same answer.
        grant = await self._sessions.Refresh(request)
        return _answer(grant, web=by_cookie or headers.x_client == "web")

    async def logout(self, call: Call[Principal]) -> Response:
        """POST /v1/auth/logout: ends the session of the access token and those of all cookies, whichever there are."""
        cookies = read_cookies(call.request, REFRESH_COOKIE)
        if not cookies:
            await self._log_out(call.request)
            return empty_answer()
        self._origins.check(call.request)
        for cookie in dict.fromkeys(cookies[:_MOST_COOKIES]):
            request = session_pb2.EndSessionRequest(refresh_token=cookie)
            await self._sessions.EndSession(request)
        try:
            await self._log_out(call.request)
        except ServiceError as error:
            # No access token, or one that has expired: the cookie was enough.
            if error.reason != "UNAUTHENTICATED":
                raise
        response = empty_answer()
        response.delete_cookie(REFRESH_COOKIE, path=_COOKIE_PATH, secure=True, httponly=True, samesite="strict")
        return response

    async def _log_out(self, request: Request) -> None:
        token = bearer_token(request)
        with context.serving(calling(self._tokens.verify(token), token)):
            await self._sessions.LogOut(session_pb2.LogOutRequest())


def _only_cookie(request: Request, name: str) -> str:
    """The cookie's value, or nothing when there are several, of which one may be a stranger's."""
    cookies = read_cookies(request, name)
    return cookies[0] if len(cookies) == 1 else ""


def _client(request: Request) -> session_pb2.Client:
    return session_pb2.Client(
        user_agent=(request.header(b"user-agent") or "")[:300],
        address=client_address(request)[:64],
        device_token=_only_cookie(request, DEVICE_COOKIE)[:128],
    )


def _answer(grant: session_pb2.Grant, *, web: bool) -> Response:
    pair = models.TokenPair(
        access_token=grant.access_token,
        token_type="Bearer",  # noqa: S106 - the scheme's name
        expires_in=grant.expires_in_seconds,
        refresh_token=UNSET if web else grant.refresh_token,
    )
    # RFC 6749, section 5.1: tokens are never cached.
    response = json_answer(pair, headers={"cache-control": "no-store"})
    if web:
        _set_cookie(response, REFRESH_COOKIE, grant.refresh_token, grant.refresh_expires_in_seconds)
        if grant.device_token:
            _set_cookie(response, DEVICE_COOKIE, grant.device_token, _DEVICE_SECONDS)
    return response


def _set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(name, value, max_age=seconds, path=_COOKIE_PATH, secure=True, httponly=True, samesite="strict")
