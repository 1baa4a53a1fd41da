"""What the contract demands of every call, put around every handler at registration.

`ContractServer` stands where the generated `add_…Servicer_to_server` expects a server and forwards to a real one,
ours or grpcio's. On the way it binds the contract: each method of the descriptor must have an access rule and a
handler of its own, or the service does not start. Around each handler it sets the request context, enforces the
permission and the field rules, maps errors to rich statuses, and writes the access line. A call takes a slot of its
class's lane before anything is done for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import lru_cache
from typing import NoReturn, Protocol, cast

import grpc
from contracts.common.v1 import options_pb2
from contracts.permissions import PERMISSIONS, Permission
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from chassis import context as request_context
from chassis.admission import Admission, Lane
from chassis.context import METADATA_ROLES, RequestContext
from chassis.errors import ServiceError
from chassis.grpc.methods import Context, Registered, Server, Streaming, Unary, method_handler
from chassis.grpc.rules import compile_rules
from chassis.grpc.server import AbortError, ServerContext, status_metadata
from chassis.identity import Caller
from chassis.observe import Work, observe, served
from chassis.tokens import TokenVerifier
from chassis.tracing import conventions

_FAR_FUTURE_SECONDS = 10.0**8
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ContractMismatchError(Exception):
    """The code does not implement the contract; the message names each mismatch, and `problems` has them."""

    def __init__(self, *problems: str) -> None:
        super().__init__("the service does not implement its contract: " + "; ".join(problems))
        self.problems = problems


class ContractServer:
    """Registers servicers of the given contract services on `server`, with the contract's policy around them."""

    def __init__(
        self,
        server: Server,
        services: Iterable[ServiceDescriptor],
        tokens: TokenVerifier | None,
        admission: Admission,
    ) -> None:
        self._server = server
        self._tokens = tokens
        self._admission = admission
        self._services = {service.full_name: service for service in services}
        self._registered: set[str] = set()
        self._mismatches: list[str] = []

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Part of the registration protocol; the registered form, which always follows, has all we need."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Registered]) -> None:
        """Called by the generated `add_…Servicer_to_server`."""
        service = self._services.get(service_name)
        if service is None:
            self._mismatches.append(f"{service_name} is served but is not part of this service's contract")
            return
        self._registered.add(service_name)
        guarded = {}
        for method in service.methods:
            handler = method_handlers.get(method.name)
            if handler is None or not _is_implemented(handler):
                self._mismatches.append(f"{method.full_name} has no handler")
            elif method.GetOptions().Extensions[options_pb2.access].WhichOneof("rule") is None:
                self._mismatches.append(f"{method.full_name} names no permission and is not marked anonymous")
            elif (operation_class := _class_of(method)) is None:
                self._mismatches.append(f"{method.full_name} names no class of operation")
            else:
                guard = _Guard(method, self._tokens, self._admission.lane(operation_class))
                if not guard.anonymous and self._tokens is None:
                    self._mismatches.append(f"{method.full_name} needs a caller, and nothing verifies tokens")
                if guard.permission is not None and guard.permission not in PERMISSIONS:
                    self._mismatches.append(f"{method.full_name} needs {guard.permission}, which no role grants")
                guarded[method.name] = _guarded(method, handler, guard)
        generic = grpc.method_handlers_generic_handler(service_name, guarded)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service_name, guarded)

    def check(self) -> None:
        """Call once everything is registered.

        Raises:
            ContractMismatchError: naming every method without handler or access rule, and every service that is
                in the contract but not served or the other way round.
        """
        missing = [f"{name} is not served" for name in self._services if name not in self._registered]
        if problems := self._mismatches + missing:
            raise ContractMismatchError(*problems)


def _is_implemented(handler: Registered) -> bool:
    # The generated base class answers UNIMPLEMENTED with plain functions that live in a *_pb2_grpc module.
    behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return not getattr(behavior, "__module__", "").endswith("_pb2_grpc")


def _class_of(method: MethodDescriptor) -> str | None:
    number = method.GetOptions().Extensions[options_pb2.operation_class]
    name: str = options_pb2.OperationClass.Name(number)
    return name.removeprefix("OPERATION_CLASS_").lower() if number else None


def _guarded(method: MethodDescriptor, handler: Registered, guard: _Guard) -> Registered:
    behavior = method_handler(handler)
    if behavior.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(
            guard.unary(behavior.unary_unary), handler.request_deserializer, handler.response_serializer
        )
    if behavior.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(
            guard.stream(behavior.unary_stream), handler.request_deserializer, handler.response_serializer
        )
    raise ContractMismatchError(f"{method.full_name} streams requests, which contracts here do not")


class _Guard:
    """The policy of one method."""

    def __init__(self, method: MethodDescriptor, tokens: TokenVerifier | None, lane: Lane) -> None:
        access = method.GetOptions().Extensions[options_pb2.access]
        name = f"{method.containing_service.full_name}/{method.name}"
        self._work = Work("rpc", name, _served, conventions.rpc_server(name))
        self.anonymous = bool(access.anonymous)
        # None: whoever has a token may. That it is a permission is checked at registration.
        self.permission = cast("Permission", access.permission) if access.WhichOneof("rule") == "permission" else None
        self._tokens = tokens
        self._lane = lane
        self._validate = compile_rules(method.input_type)

    def unary(self, behavior: Unary) -> Unary:
        async def call(request: Message, context: Context) -> Message:
            metadata = _metadata_of(context)
            try:
                with observe(self._work, RequestContext.from_metadata(metadata.text, metadata.deadline)):
                    entered = self._lane.take() or await self._lane.wait()
                    try:
                        self._check(metadata, request)
                        return await behavior(request, context)
                    finally:
                        self._lane.leave(entered)
            except ServiceError as error:
                await _abort(context, error)

        return call

    def stream(self, behavior: Streaming) -> Streaming:
        async def call(request: Message, context: Context) -> AsyncGenerator[Message, None]:
            metadata = _metadata_of(context)
            try:
                with observe(self._work, RequestContext.from_metadata(metadata.text, metadata.deadline)):
                    entered = self._lane.take() or await self._lane.wait()
                    try:
                        self._check(metadata, request)
                        async for response in behavior(request, context):
                            yield response
                    finally:
                        self._lane.leave(entered)
            except ServiceError as error:
                await _abort(context, error)

        return call

    def _check(self, metadata: _Metadata, request: Message) -> None:
        if not self.anonymous:
            caller, token = self._caller(metadata)
            request_context.authenticated(caller, token)
            if self.permission is not None and not caller.may(self.permission):
                raise ServiceError("PERMISSION_DENIED", facts={"permission": self.permission})
        if self._validate is not None:
            self._validate(request)

    def _caller(self, metadata: _Metadata) -> tuple[Caller, str]:
        """Who calls, by the token; with those of its roles that the peer says are still held."""
        current = request_context.current()
        if current is None or not current.token or self._tokens is None:
            raise ServiceError("UNAUTHENTICATED")
        claims = self._tokens.verify(current.token)
        roles = claims.roles
        for held in metadata.texts(METADATA_ROLES):
            roles = _still_held(roles, held)
        return Caller(claims.user_id, claims.session_id, roles), current.token


@lru_cache(maxsize=256)
def _still_held(roles: tuple[str, ...], held: str) -> tuple[str, ...]:
    """Those of a token's roles that are in a peer's list of them, with commas."""
    names = held.split(",")
    return tuple([role for role in roles if role in names])


class _Metadata(Protocol):
    """What the policy reads of a call; our server's context has it."""

    @property
    def deadline(self) -> float | None:
        """On the event loop's clock."""
        ...

    def text(self, key: str) -> str | None:
        """The value of a key."""
        ...

    def texts(self, key: str) -> list[str]:
        """All values of a key."""
        ...


class _GrpcioMetadata:
    """The same of grpcio's context."""

    def __init__(self, context: grpc.aio.ServicerContext[Message, Message]) -> None:
        self._pairs = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        remaining = context.time_remaining()
        # grpcio reports "no deadline" as a time in the far future.
        has_one = remaining is not None and remaining < _FAR_FUTURE_SECONDS
        self.deadline = asyncio.get_running_loop().time() + remaining if has_one else None

    def text(self, key: str) -> str | None:
        return next(reversed(self.texts(key)), None)

    def texts(self, key: str) -> list[str]:
        return [value for other, value in self._pairs if other == key]


def _metadata_of(context: Context) -> _Metadata:
    return context if isinstance(context, ServerContext) else _GrpcioMetadata(context)


def _served(error: Exception, method: str) -> ServiceError | None:
    # Whoever has aborted has said with what.
    return None if isinstance(error, AbortError) else served(error, method)


async def _abort(context: Context, error: ServiceError) -> NoReturn:
    status = error.to_status()
    await context.abort(_CODES[status.code], status.message, status_metadata(status))
    raise AssertionError("abort raises")
