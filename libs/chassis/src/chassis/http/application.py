"""An ASGI application that is its contract: one route for each path, one handler for each operation.

At start every operation must find exactly one handler (a method named after its `operationId`) and every handler an
operation, and each operation a permission or an explicit `security: []`; otherwise the service does not start. Then,
for every request: context, deadline, authentication, permission, validation, handler, errors, access line.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import structlog
from contract_runtime.operation import Operation
from contracts.permissions import PERMISSIONS
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chassis import context
from chassis.admission import Admission, Lane
from chassis.context import RequestContext
from chassis.errors import ServiceError
from chassis.grpc.policy import ContractMismatchError
from chassis.http import parsing
from chassis.http.answers import finish, problem_answer
from chassis.http.bodies import BodyReader
from chassis.http.request import Request
from chassis.http.routes import Routes, parameters_of
from chassis.identity import Caller
from chassis.networks import network
from chassis.observe import Work, observe, served
from chassis.presence import CallerGoneError, Presence
from chassis.tracing import conventions

P_co = TypeVar("P_co", covariant=True)
# It is called with what it asks for by name, which is another for each: call, body, query, headers, path parameters.
Handler = Callable[..., Awaitable[Response]]  # type: ignore[explicit-any]

# Of an answer, what is given to Envoy at once: it holds no more of one that is not read.
_PART_BYTES = 65536
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# The path that there is not, and the method that a path has not, as operations.
_NO_OPERATION = Work("http", "", served, conventions.http_server("", ""))
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call(Generic[P_co]):
    """What a handler may want to know about its request besides its parameters."""

    request: Request
    # Whatever the authenticator found; None for an anonymous operation.
    principal: P_co | None


class Authenticated(msgspec.Struct, Generic[P_co], frozen=True):
    """An authenticator's answer: caller and token for the context, and the principal for the handlers."""

    caller: Caller
    # Passed on to the services behind, which verify it for themselves.
    token: str
    principal: P_co


class HttpApplication:
    """The ASGI application.

    Args:
        operations: the contract.
        handlers: objects whose public coroutine methods are the handlers.
        authenticate: finds out who calls; raises ServiceError UNAUTHENTICATED.
        body_bytes: the longest body of a request; its timeout is in the contract.
        admission: the process's lanes (without: some of its own); a call takes a slot of its class's before anything
            is done for it.
        address_of: the client's address, known before anybody is authenticated. All of one network share what one client
            may take of a lane; without, nobody does.

    Raises:
        ContractMismatchError: handlers and contract differ; names each difference.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        handlers: Iterable[object],
        authenticate: Callable[[Request], Awaitable[Authenticated[object]]],
        body_bytes: int,
        admission: Admission | None = None,
        address_of: Callable[[Request], str] = lambda _: "",
    ) -> None:
        operations = tuple(operations)
        admission = admission or Admission()
        bound = _bind(operations, handlers)
        endpoints: dict[str, dict[str, _Endpoint]] = {}
        for operation in operations:
            lane = admission.lane(operation.operation_class)
            endpoint = _Endpoint(operation, bound[operation.handler], authenticate, body_bytes, lane, address_of)
            methods = endpoints.setdefault(operation.path, {})
            methods[operation.method] = endpoint
            if operation.method == "GET":
                # HEAD wherever GET is (RFC 9110, section 9.1).
                methods["HEAD"] = endpoint
        self._routes = Routes(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3, HTTP only."""
        found = self._routes.find(scope["path"])
        methods, parameters = found or ({}, {})
        request = Request(scope, receive, parameters)
        endpoint = methods.get(request.method)
        try:
            if endpoint is not None:
                response = await endpoint(request)
            elif found is None:
                response = _refusal(request, ServiceError("NOT_FOUND"))
            else:
                response = _refusal(request, ServiceError("METHOD_NOT_ALLOWED"), {"allow": ", ".join(sorted(methods))})
        except CallerGoneError:
            return
        await _send(request, response, send)


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
        raise ContractMismatchError(*problems)
    return found


class _Endpoint:
    """One operation."""

    def __init__(
        self,
        operation: Operation,
        handler: Handler,
        authenticate: Callable[[Request], Awaitable[Authenticated[object]]],
        body_bytes: int,
        lane: Lane,
        address_of: Callable[[Request], str],
    ) -> None:
        self._operation = operation
        span = conventions.http_server(operation.method, operation.path)
        self._work = Work("http", operation.id, served, span)
        self._handler = handler
        self._authenticate = authenticate
        self._body_bytes = body_bytes
        self._lane = lane
        self._address_of = address_of
        # The handler gets what it asks for by name: call, body, query, headers, path parameters.
        self._wants_call = "call" in inspect.signature(handler).parameters
        self._path_parameters = parameters_of(operation.path)
        self._query = parsing.QueryReader(operation.query) if operation.query else None
        self._refused_headers = parsing.refused_headers(operation)
        self._headers = parsing.HeaderReader(operation.headers) if operation.headers else None
        self._body = BodyReader(operation.body) if operation.body else None
        # What anybody may read may be kept by anybody; everything else is somebody's own, its errors included.
        self._cacheable = operation.anonymous and operation.method == "GET"

    async def __call__(self, request: Request) -> Response:
        """The answer.

        Raises:
            CallerGoneError: nobody waits for it any more.
        """
        deadline = asyncio.get_running_loop().time() + self._operation.timeout
        presence = Presence(request.receive, deadline)
        address = self._address_of(request)
        current = RequestContext(
            request_id=context.accept_request_id(request.header(b"x-request-id")),
            deadline=deadline,
            traceparent=context.accept_traceparent(request.header(b"traceparent")),
            address=address,
            presence=presence if self._body is None else None,
            timer=deadline,
        )
        try:
            with observe(self._work, current) as unit, presence:
                if (span := unit.span) is not None:
                    span.trace.path = request.path
                response = await self._admitted(request, presence, network(address))
                if span is not None:
                    span.trace.status = response.status_code
        except ServiceError as error:
            has_credentials = request.header(b"authorization") is not None
            response = problem_answer(error, current.request_id, has_credentials=has_credentials)
        finish(response, current.request_id, cacheable=self._cacheable)
        return response

    async def _admitted(self, request: Request, presence: Presence, caller: str) -> Response:
        if self._body is None:
            # What has been reset already takes no slot.
            await presence.check()
            presence.watch()
        entered = self._lane.take(caller) or await self._lane.wait(caller)
        try:
            return await self._serve(request, presence)
        finally:
            self._lane.leave(entered, caller)

    async def _serve(self, request: Request, presence: Presence) -> Response:
        operation = self._operation
        if not parsing.accepts(request, operation.media_type):
            raise ServiceError("NOT_ACCEPTABLE", f"this operation answers {operation.media_type}")
        principal = None
        if not operation.anonymous:
            found = await self._authenticate(request)
            if operation.permission is None or not found.caller.may(operation.permission):
                raise ServiceError("PERMISSION_DENIED", facts={"permission": operation.permission or ""})
            context.authenticated(found.caller, found.token)
            principal = found.principal
        wanted = self._parameters(request)
        if self._body is not None:
            text = await parsing.read_text(request, self._body_bytes)
            presence.watch()
            wanted["body"] = self._body.read(text)
        if self._wants_call:
            wanted["call"] = Call(request, principal)
        return await self._handler(**wanted)

    def _parameters(self, request: Request) -> dict[str, object]:
        wanted: dict[str, object] = {}
        for name in self._path_parameters:
            value = request.parameters[name]
            # A path parameter is an id; what is no id names nothing.
            if not _UUID.fullmatch(value):
                raise ServiceError("NOT_FOUND")
            wanted[name] = value.lower()
        for header, reason in self._refused_headers:
            if request.header(header) is not None:
                raise parsing.header_problem(reason, header.decode(), "is not taken by this operation")
        if self._query is not None:
            wanted["query"] = self._query.read(request)
        if self._headers is not None:
            wanted["headers"] = self._headers.read(request)
        return wanted


def _refusal(request: Request, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to what is no operation."""
    request_id = context.accept_request_id(request.header(b"x-request-id"))
    traceparent = context.accept_traceparent(request.header(b"traceparent"))
    with suppress(ServiceError), observe(_NO_OPERATION, RequestContext(request_id, traceparent=traceparent)):
        raise error
    return problem_answer(error, request_id, headers)


async def _send(request: Request, response: Response, send: Send) -> None:
    """Send it, as its client reads; to HEAD without content but with GET's headers (RFC 9110, section 9.3.2)."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    body, sent = b"" if request.method == "HEAD" else response.body, 0
    try:
        while len(body) - sent > _PART_BYTES:
            # Returns once Envoy has room for more.
            part = body[sent : sent + _PART_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            sent += _PART_BYTES
        await send({"type": "http.response.body", "body": body[sent:] if sent else body})
    except OSError:
        _log.debug("nobody reads the rest", path=request.path, bytes=len(body) - sent)
