"""The service as it runs: called by the BFF over mutual TLS, for a user."""

from __future__ import annotations

import inside
import pytest
from chassis.errors import ServiceError
from contracts.sample.v1 import sample_pb2
from contracts.sample.v1.sample_pb2_grpc import SampleServiceStub

from conftest import People, Platform

REQUEST = sample_pb2.CountWordsRequest(text="one and one")


async def test_words_are_counted(platform: Platform, people: People) -> None:
    customer, _ = await people.newcomer()
    known = inside.stub(SampleServiceStub, platform, "sample", token=customer.access_token)
    answer = await known.CountWords(REQUEST)
    assert (answer.total, dict(answer.by_word)) == (3, {"one": 2, "and": 1})


async def test_what_the_contract_forbids_is_refused(platform: Platform, people: People) -> None:
    customer, _ = await people.newcomer()
    known = inside.stub(SampleServiceStub, platform, "sample", token=customer.access_token)
    unknown = inside.stub(SampleServiceStub, platform, "sample")
    with pytest.raises(ServiceError, match="INVALID_ARGUMENT"):
        await known.CountWords(sample_pb2.CountWordsRequest(text=""))
    with pytest.raises(ServiceError, match="UNAUTHENTICATED"):
        await unknown.CountWords(REQUEST)
    # Whom the contract does not name (`callers`) Envoy refuses, whatever they ask.
    limiter = inside.identity(platform.layout.certificates / "limiter")
    answer = await inside.call(platform.layout.port("sample"), "/sample.v1.SampleService/CountWords", limiter)
    assert answer.grpc_status == "7"
    assert "RBAC" in answer.headers["grpc-message"]
