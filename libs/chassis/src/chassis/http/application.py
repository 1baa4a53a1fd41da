"""An ASGI application that is its contract: one route for each path, one handler for each operation.

At start every operation must find exactly one handler (a method named after its `operationId`) and every handler an
operation, and each operation a permission or an explicit `security: []`; otherwise the service does not start. Then,
for every request: context, deadline, authentication, permission, validation, handler, errors, access line.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import structlog
from contract_runtime.operation import Operation
from contracts.permissions import PERMISSIONS
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from chassis import context
from chassis.admission import Admission, Lane
from chassis.context import RequestContext
from chassis.errors import ServiceError, as_service_error
from chassis.grpc.policy import ContractMismatchError
from chassis.http import parsing
from chassis.http.answers import problem_answer
from chassis.http.bodies import BodyReader
from chassis.identity import Caller
from chassis.presence import CallerGoneError, Presence

P = TypeVar("P")
Handler = Callable[..., Awaitable[Response]]

# Of an answer, what is given to Envoy at once: it holds no more of one that is not read.
_PART_BYTES = 65536
_PATH_PARAMETER = re.compile(r"{(\w+)}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_log = structlog.get_logger("access")


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """What a handler may want to know about its request besides its parameters."""

    request: Request
    # Whatever the authenticator found; None for an anonymous operation.
    principal: P | None


@dataclass(frozen=True, slots=True)
class Authenticated(Generic[P]):
    """An authenticator's answer: caller and token for the context, and the principal for the handlers."""

    caller: Caller
    # Passed on to the services behind, which verify it for themselves.
    token: str
    principal: P


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on every request; its timeout is in the contract."""

    body_bytes: int


class HttpApplication:
    """The ASGI application.

    Args:
        operations: the contract.
        handlers: objects whose public coroutine methods are the handlers.
        authenticate: finds out who calls; raises ServiceError UNAUTHENTICATED.
        limits: bounds on every request.
        admission: the process's lanes (without: some of its own); a call takes a slot of its class's before anything
            is done for it.
        caller_of: whose share of a lane a request takes, known before anybody is authenticated; without, nobody's.

    Raises:
        ContractMismatchError: handlers and contract differ; names each difference.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        handlers: Iterable[object],
        authenticate: Callable[[Request], Awaitable[Authenticated[Any]]],
        limits: Limits,
        admission: Admission | None = None,
        caller_of: Callable[[Request], str] = lambda _: "",
    ) -> None:
        operations = tuple(operations)
        admission = admission or Admission()
        bound = _bind(operations, handlers)
        by_path: dict[str, dict[str, _Endpoint]] = {}
        for operation in operations:
            lane = admission.lane(operation.operation_class)
            endpoint = _Endpoint(operation, bound[operation.handler], authenticate, limits, lane, caller_of)
            by_path.setdefault(operation.path, {})[operation.method] = endpoint
        routes = [Route(path, _Resource(endpoints)) for path, endpoints in by_path.items()]
        self._router = Router(routes, redirect_slashes=False, default=_not_found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3, HTTP only."""
        await self._router(scope, receive, send)


def _bind(operations: tuple[Operation, ...], handlers: Iterable[object]) -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    problems = []
    for holder in handlers:
        for name, method in inspect.getmembers(holder, inspect.iscoroutinefunction):
            if name.startswith("_"):
                continue
            if name in found:
                problems.append(f"{name} has two handlers")
            found[name] = method
    known = {operation.handler for operation in operations}
    problems += [f"{name} is no operation of the contract" for name in sorted(found.keys() - known)]
    for operation in operations:
        if operation.handler not in found:
            problems.append(f"{operation.id} has no handler")
        if operation.permission is None and not operation.anonymous:
            problems.append(f"{operation.id} names no permission and is not marked with security: []")
        if operation.permission is not None and operation.permission not in PERMISSIONS:
            problems.append(f"{operation.id} needs {operation.permission}, which no role grants")
    if problems:
        raise ContractMismatchError("the service does not implement its contract: " + "; ".join(problems))
    return found


class _Resource:
    """One path: picks the operation by method."""

    def __init__(self, endpoints: Mapping[str, _Endpoint]) -> None:
        # HEAD wherever GET is (RFC 9110, section 9.1).
        self._endpoints = {**endpoints, "HEAD": endpoints["GET"]} if "GET" in endpoints else endpoints
        self._allow = ", ".join(sorted(self._endpoints))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        endpoint = self._endpoints.get(request.method)
        if endpoint is None:
            response = _refusal(request, ServiceError("METHOD_NOT_ALLOWED"), {"allow": self._allow})
        else:
            try:
                response = await endpoint(request)
            except CallerGoneError:
                return
        await _answer(request, response, send)


class _Endpoint:
    """One operation."""

    def __init__(
        self,
        operation: Operation,
        handler: Handler,
        authenticate: Callable[[Request], Awaitable[Authenticated[Any]]],
        limits: Limits,
        lane: Lane,
        caller_of: Callable[[Request], str],
    ) -> None:
        self._operation = operation
        self._handler = handler
        self._authenticate = authenticate
        self._body_bytes = limits.body_bytes
        self._lane = lane
        self._caller_of = caller_of
        # The handler gets what it asks for by name: call, body, query, headers, path parameters.
        self._wants = frozenset(inspect.signature(handler).parameters)
        self._path_parameters = tuple(_PATH_PARAMETER.findall(operation.path))
        self._query = parsing.QueryReader(operation.query) if operation.query else None
        self._headers = parsing.HeaderReader(operation.headers) if operation.headers else None
        self._body = BodyReader(operation.body) if operation.body else None
        # What anybody may read may be kept by anybody; everything else is somebody's own, its errors included.
        self._cacheable = operation.anonymous and operation.method == "GET"

    async def __call__(self, request: Request) -> Response:
        """The answer.

        Raises:
            CallerGoneError: nobody waits for it any more.
        """
        started = time.perf_counter()
        presence = Presence(request.receive)
        if self._body is None:
            # What has been reset already takes no slot.
            await presence.check()
            presence.watch()
        deadline = asyncio.get_running_loop().time() + self._operation.timeout
        current = RequestContext(
            request_id=context.accept_request_id(request.headers.get("x-request-id")),
            deadline=deadline,
            traceparent=context.accept_traceparent(request.headers.get("traceparent")),
            presence=presence if self._body is None else None,
        )
        try:
            async with asyncio.timeout_at(deadline):
                caller = self._caller_of(request)
                entered = self._lane.take(caller) or await self._lane.wait(caller)
                try:
                    response = await self._serve(request, current, presence)
                finally:
                    self._lane.leave(entered, caller)
            outcome = "OK"
        except asyncio.CancelledError:
            if presence.is_gone:
                raise CallerGoneError from None
            raise
        except Exception as error:
            if presence.is_gone:
                raise CallerGoneError from error
            known = as_service_error(error)
            if known is None and isinstance(error, TimeoutError):
                known = ServiceError("DEADLINE_EXCEEDED")
            with context.serving(current):
                if known is None:
                    _log.exception("unexpected error", operation=self._operation.id)
                    known = ServiceError("INTERNAL")
            outcome = known.reason
            response = problem_answer(known, current.request_id)
        finally:
            presence.stop()
        response.headers["x-request-id"] = current.request_id
        if not self._cacheable:
            response.headers["cache-control"] = "no-store"
        with context.serving(current):
            # Envoy's access log has every request; this line says why one failed.
            log = _log.debug if outcome == "OK" else _log.info
            log(
                "http",
                operation=self._operation.id,
                status=response.status_code,
                outcome=outcome,
                duration_ms=round((time.perf_counter() - started) * 1000, 3),
            )
        return response

    async def _serve(self, request: Request, current: RequestContext, presence: Presence) -> Response:
        operation = self._operation
        if not parsing.accepts(request, operation.media_type):
            raise ServiceError("NOT_ACCEPTABLE", f"this operation answers {operation.media_type}")
        principal = None
        if not operation.anonymous:
            with context.serving(current):
                authenticated = await self._authenticate(request)
            if operation.permission is None or not authenticated.caller.may(operation.permission):
                raise ServiceError("PERMISSION_DENIED", facts={"permission": operation.permission or ""})
            current = replace(current, caller=authenticated.caller, token=authenticated.token)
            principal = authenticated.principal
        wanted = await self._parameters(request, principal, presence)
        with context.serving(current):
            return await self._handler(**wanted)

    async def _parameters(self, request: Request, principal: Any, presence: Presence) -> dict[str, Any]:
        operation = self._operation
        wanted: dict[str, Any] = {}
        for name in self._path_parameters:
            value = request.path_params[name]
            # A path parameter is an id; what is no id names nothing.
            if not _UUID.fullmatch(value):
                raise ServiceError("NOT_FOUND")
            wanted[name] = value.lower()
        if operation.refuses_idempotency_key and parsing.IDEMPOTENCY_KEY in request.headers:
            # Taken in silence, it would promise what is not kept.
            raise parsing.key_problem("IDEMPOTENCY_KEY_REFUSED", "is not taken by this operation")
        if self._query is not None:
            wanted["query"] = self._query.read(request)
        if self._headers is not None:
            wanted["headers"] = self._headers.read(request)
        if self._body is not None:
            text = await parsing.read_text(request, self._body_bytes)
            presence.watch()
            wanted["body"] = self._body.read(text)
        if "call" in self._wants:
            wanted["call"] = Call(request, principal)
        return wanted


def _refusal(request: Request, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    request_id = context.accept_request_id(request.headers.get("x-request-id"))
    with context.serving(RequestContext(request_id)):
        _log.info("http", operation="", status=error.kind.http_status, outcome=error.reason)
    return problem_answer(error, request_id, headers)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    await _answer(request, _refusal(request, ServiceError("NOT_FOUND")), send)


async def _answer(request: Request, response: Response, send: Send) -> None:
    """Send it, as its client reads; to HEAD without content but with GET's headers (RFC 9110, section 9.3.2)."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    body, sent = b"" if request.method == "HEAD" else response.body, 0
    try:
        while len(body) - sent > _PART_BYTES:
            # Returns once Envoy has room for more.
            part = body[sent : sent + _PART_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            sent += _PART_BYTES
        await send({"type": "http.response.body", "body": body[sent:]})
    except OSError:
        _log.debug("nobody reads the rest", path=request.url.path, bytes=len(body) - sent)
