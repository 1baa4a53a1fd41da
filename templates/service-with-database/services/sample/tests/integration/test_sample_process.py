"""The service as it runs: called by the BFF over mutual TLS, for a user, on its own database."""

from __future__ import annotations

import inside
import pytest
from chassis.errors import ServiceError
from contracts.common.v1 import paging_pb2
from contracts.sample.v1 import sample_pb2
from contracts.sample.v1.sample_pb2_grpc import SampleServiceStub

from conftest import People, Platform


async def test_what_a_user_keeps_is_found_again_by_them_alone(platform: Platform, people: People) -> None:
    (owner, _), (stranger, _) = await people.newcomer(), await people.newcomer()
    own = inside.stub(SampleServiceStub, platform, "sample", token=owner.access_token)
    others = inside.stub(SampleServiceStub, platform, "sample", token=stranger.access_token)
    made = [await own.CreateEntry(sample_pb2.CreateEntryRequest(text=text)) for text in ("first", "second")]
    assert await own.GetEntry(sample_pb2.GetEntryRequest(id=made[0].id)) == made[0]
    with pytest.raises(ServiceError, match="NOT_FOUND"):
        await others.GetEntry(sample_pb2.GetEntryRequest(id=made[0].id))
    newest = await own.ListEntries(sample_pb2.ListEntriesRequest(page=paging_pb2.PageRequest(limit=1)))
    rest = paging_pb2.PageRequest(limit=1, cursor=newest.next_cursor)
    oldest = await own.ListEntries(sample_pb2.ListEntriesRequest(page=rest))
    assert [*newest.entries, *oldest.entries] == [made[1], made[0]]
    assert oldest.next_cursor == ""


async def test_what_the_contract_forbids_is_refused(platform: Platform, people: People) -> None:
    customer, _ = await people.newcomer()
    known = inside.stub(SampleServiceStub, platform, "sample", token=customer.access_token)
    unknown = inside.stub(SampleServiceStub, platform, "sample")
    with pytest.raises(ServiceError, match="INVALID_ARGUMENT"):
        await known.CreateEntry(sample_pb2.CreateEntryRequest(text=""))
    with pytest.raises(ServiceError, match="UNAUTHENTICATED"):
        await unknown.CreateEntry(sample_pb2.CreateEntryRequest(text="anything"))
    # Whom the contract does not name (`callers`) Envoy refuses, whatever they ask.
    limiter = inside.identity(platform.layout.certificates / "limiter")
    answer = await inside.call(platform.layout.port("sample"), "/sample.v1.SampleService/CreateEntry", limiter)
    assert answer.grpc_status == "7"
    assert "RBAC" in answer.headers["grpc-message"]
