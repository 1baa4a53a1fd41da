"""The service's composition root: the only place where its objects are built and wired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chassis.admission import Admission
from chassis.config import load
from chassis.grpc.server import GrpcApplication
from chassis.grpc.serving import serve_contract
from chassis.lifecycle import Composition, ServiceProcess
from chassis.logging import configure
from chassis.tokens import TokenVerifier, token_verifier
from chassis.tracing.process import Tracing
from contracts.sample.v1 import sample_pb2
from contracts.sample.v1.sample_pb2_grpc import add_SampleServiceServicer_to_server

from sample.handlers.words import WordHandlers
from sample.service.words import WordUseCases
from sample.settings import Settings


@dataclass(frozen=True, slots=True)
class Servicers:
    """Everything the service answers."""

    words: WordHandlers
    tokens: TokenVerifier
    admission: Admission

    def add_to(self, server: GrpcApplication) -> None:
        """Register on a server."""
        contract = sample_pb2.DESCRIPTOR.services_by_name["SampleService"]
        with serve_contract(server, contract, admission=self.admission, tokens=self.tokens) as registry:
            add_SampleServiceServicer_to_server(self.words, registry)


def build(settings: Settings) -> Servicers:
    """Wire the service."""
    words = WordHandlers(WordUseCases())
    return Servicers(words, token_verifier(settings), Admission(enabled=settings.admission))


@asynccontextmanager
async def compose() -> AsyncIterator[Composition]:
    """Wire the service."""
    settings = load(Settings)
    configure("sample", environment=settings.environment, version=settings.version, level=settings.log_level)
    servicers, application = build(settings), GrpcApplication()
    servicers.add_to(application)
    yield Composition(application, servicers.admission, tracing=Tracing.configured("sample", settings))


app = ServiceProcess(compose)
ops = app.ops
