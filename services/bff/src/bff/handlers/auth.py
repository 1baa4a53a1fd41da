"""Accounts and tokens."""

from __future__ import annotations

from chassis.errors import ServiceError
from chassis.grpc import client
from chassis.http.answers import empty_answer, json_answer
from chassis.http.application import Call
from contracts.http import models, operations
from contracts.user.v1 import user_pb2
from contracts.user.v1.user_pb2_grpc import UserServiceStub
from msgspec import UNSET
from starlette.responses import Response

from bff import shapes
from bff.authentication import Principal, client_address, resolve_user
from bff.sessions import SessionStore
from bff.throttle import LoginThrottle
from bff.tokens import AccessTokens

COOKIE = "refresh_token"
# The cookie goes where it is used and nowhere else.
_COOKIE_PATH = "/v1/auth"


class AuthHandlers:
    """register, login, refresh, logout."""

    def __init__(
        self,
        users: UserServiceStub,
        sessions: SessionStore,
        throttle: LoginThrottle,
        tokens: AccessTokens,
        cookie_seconds: int,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._throttle = throttle
        self._tokens = tokens
        self._cookie_seconds = cookie_seconds

    async def register(self, body: models.RegisterRequest) -> Response:
        """POST /v1/auth/register."""
        request = user_pb2.RegisterRequest(email=body.email, password=body.password, display_name=body.display_name)
        user = await client.call(self._users.Register, request)
        return json_answer(shapes.user(user), status=201, version=user.version)

    async def login(
        self, call: Call[Principal], body: models.LoginRequest, headers: operations.LoginHeaders
    ) -> Response:
        """POST /v1/auth/login."""
        await self._throttle.begin(body.email)
        credentials = user_pb2.AuthenticateRequest(email=body.email, password=body.password)
        user = await client.call(self._users.Authenticate, credentials)
        await self._throttle.succeeded(body.email)
        agent, address = call.request.headers.get("user-agent", ""), client_address(call.request)
        session, refresh_token = await self._sessions.start(user.id, agent, address)
        return self._pair(user, session.id, refresh_token, web=headers.x_client == "web")

    async def refresh_tokens(
        self, call: Call[Principal], body: models.RefreshRequest, headers: operations.RefreshTokensHeaders
    ) -> Response:
        """POST /v1/auth/refresh."""
        presented = call.request.cookies.get(COOKIE, "") if body.refresh_token is UNSET else body.refresh_token
        agent, address = call.request.headers.get("user-agent", ""), client_address(call.request)
        session, refresh_token = await self._sessions.rotate(presented, agent, address)
        user = await resolve_user(self._users, session.user_id)
        if user.status != user_pb2.USER_STATUS_ACTIVE:
            raise ServiceError("INVALID_REFRESH_TOKEN")
        return self._pair(user, session.id, refresh_token, web=headers.x_client == "web")

    async def logout(self, call: Call[Principal]) -> Response:
        """POST /v1/auth/logout."""
        if call.principal is not None:
            await self._sessions.revoke(call.principal.user.id, call.principal.session.id)
        response = empty_answer()
        response.delete_cookie(COOKIE, path=_COOKIE_PATH, secure=True, httponly=True, samesite="strict")
        return response

    def _pair(self, user: user_pb2.User, session_id: str, refresh_token: str, *, web: bool) -> Response:
        pair = models.TokenPair(
            access_token=self._tokens.issue(user.id, session_id, list(user.roles)),
            token_type="Bearer",  # noqa: S106 - the scheme's name
            expires_in=self._tokens.lifetime,
            refresh_token=UNSET if web else refresh_token,
        )
        # RFC 6749, section 5.1: tokens are never cached.
        response = json_answer(pair, headers={"cache-control": "no-store"})
        if web:
            response.set_cookie(
                COOKIE,
                refresh_token,
                max_age=self._cookie_seconds,
                path=_COOKIE_PATH,
                secure=True,
                httponly=True,
                samesite="strict",
            )
        return response
