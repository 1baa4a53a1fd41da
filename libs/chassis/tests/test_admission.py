from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from chassis.admission import BOUNDS, Admission, Bounds, Lane
from chassis.context import RequestContext, serving
from chassis.errors import ServiceError
from chassis.metrics.exposition import exposition
from chassis.metrics.families import FAMILIES
from contracts.bff.v1.operations import OPERATIONS
from contracts.common.v1.options_pb2 import OperationClass


def lane(slots: int = 2, queue: int = 3, wait: float = 0.2) -> Lane:
    return Lane("read", Bounds(slots, queue, wait))


async def enter(entered: Lane, caller: str = "") -> float:
    return entered.take(caller) or await entered.wait(caller)


async def refused(entering: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await entering
    assert caught.value.reason == "OVERLOADED"
    return caught.value


async def settled(*tasks: asyncio.Task[float]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_are_taken_at_once_and_given_on_in_order_of_arrival() -> None:
    reads = lane()
    first, second = await enter(reads), await enter(reads)
    assert (reads.running, reads.admitted, reads.expected_wait(time.monotonic() - 1)) == (2, 2, 0.0)
    third, fourth = asyncio.create_task(enter(reads)), asyncio.create_task(enter(reads))
    await settled()
    assert reads.waiting == 2
    reads.leave(first)
    await settled()
    assert (third.done(), fourth.done(), reads.running) == (True, False, 2)
    reads.leave(second)
    for last in (await third, await fourth):
        reads.leave(last)
    assert (reads.running, reads.waiting, reads.admitted, reads.refused) == (0, 0, 4, 0)


async def test_who_would_wait_too_long_is_refused_when_it_comes() -> None:
    reads = lane(wait=0.2)
    # Two slots and half a second a call: four leave in a second.
    reads.seconds = 0.5
    await enter(reads)
    await enter(reads)
    error = await refused(enter(reads))
    assert (error.retry_after, reads.refused, reads.waiting) == (1.0, 1, 0)
    reads.seconds = 10.0
    assert math.ceil((await refused(enter(reads))).retry_after or 0) == 5


async def test_a_full_queue_refuses() -> None:
    reads = lane(queue=3, wait=10)
    await enter(reads)
    await enter(reads)
    waiting = [asyncio.create_task(enter(reads)) for _ in range(3)]
    await settled()
    await refused(enter(reads))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (reads.waiting, reads.running) == (0, 2)


async def test_a_lane_in_which_everything_hangs_takes_no_more_callers_however_quick_it_was() -> None:
    reads = lane(queue=100, wait=0.1)
    reads.seconds = 0.0001
    await enter(reads)
    await enter(reads)
    # The one that came while it looked quick has waited as long as it may; its successor is refused at once.
    await refused(enter(reads))
    before = time.monotonic()
    await refused(enter(reads))
    assert reads.refused == 2
    assert time.monotonic() - before < 0.1


async def test_a_burst_is_worked_off_when_it_is_quick() -> None:
    reads = lane(slots=4, queue=100, wait=1.0)

    async def call() -> None:
        entered = await enter(reads)
        await asyncio.sleep(0.001)
        reads.leave(entered)

    await asyncio.gather(*(call() for _ in range(60)))
    assert (reads.admitted, reads.refused, reads.running, reads.waiting) == (60, 0, 0, 0)
    assert 0 < reads.seconds < 1


async def test_who_leaves_the_queue_leaves_no_slot_taken() -> None:
    reads = lane(slots=1)
    entered = await enter(reads)
    leaving, next_one = asyncio.create_task(enter(reads)), asyncio.create_task(enter(reads))
    await settled()
    # The slot is handed over in the very turn of the loop in which its new owner is cancelled.
    reads.leave(entered)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    reads.leave(await next_one)
    assert (reads.running, reads.waiting) == (0, 0)


async def test_who_has_less_time_left_waits_no_longer_than_that() -> None:
    reads = lane(wait=10)
    reads.seconds = 1.0
    await enter(reads)
    await enter(reads)
    with serving(RequestContext("request", asyncio.get_running_loop().time() + 0.1)):
        await refused(enter(reads))
    assert reads.waiting == 0


async def test_one_caller_holds_half_of_the_slots_and_waits_for_more() -> None:
    reads = lane(slots=4, queue=10, wait=10)
    taken = [await enter(reads, "many"), await enter(reads, "many")]
    more = [asyncio.create_task(enter(reads, "many")) for _ in range(3)]
    await settled()
    assert (reads.running, reads.waiting) == (2, 3)
    other = await enter(reads, "other")
    assert (reads.running, reads.waiting) == (3, 3)
    for task in more:
        reads.leave(taken.pop(0), "many")
        taken.append(await task)
    reads.leave(other, "other")
    for entered in taken:
        reads.leave(entered, "many")
    assert (reads.running, reads.waiting, reads.admitted, reads._held, reads._queues) == (0, 0, 6, {}, {})


async def test_a_slot_is_that_of_who_holds_least_however_much_others_have_sent() -> None:
    reads = lane(slots=4, queue=20, wait=10)
    held = [(caller, await enter(reads, caller)) for caller in ("many", "more", "many", "more")]
    crowd = [asyncio.create_task(enter(reads, caller)) for caller in ("many", "more") * 3]
    await settled()
    other = asyncio.create_task(enter(reads, "other"))
    await settled()
    # One call's time, however many wait: nobody who has a slot goes first.
    reads.seconds = 1.0
    assert reads.expected_wait(reads._moved, "third") == 4 / 4
    caller, entered = held.pop()
    reads.leave(entered, caller)
    await settled()
    assert other.done()
    assert not any(task.done() for task in crowd)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    for caller, entered in held:
        reads.leave(entered, caller)
    reads.leave(await other, "other")
    assert (reads.running, reads.waiting, reads._held, reads._queues) == (0, 0, {}, {})


async def test_of_a_full_queue_who_has_most_in_it_gives_way() -> None:
    reads = lane(slots=2, queue=4, wait=10)
    taken = [(caller, await enter(reads, caller)) for caller in ("many", "more")]
    crowd = [asyncio.create_task(enter(reads, "many")) for _ in range(4)]
    await settled()
    await refused(enter(reads, "many"))
    others = [asyncio.create_task(enter(reads, "other")) for _ in range(2)]
    await settled()
    # The newest two were pushed out; now both have as many.
    assert [task.done() for task in crowd] == [False, False, True, True]
    assert isinstance(crowd[3].exception(), ServiceError)
    await refused(enter(reads, "other"))
    assert (reads.waiting, reads.refused) == (4, 4)
    for task in (*crowd, *others):
        task.cancel()
    await asyncio.gather(*crowd, *others, return_exceptions=True)
    for caller, entered in taken:
        reads.leave(entered, caller)
    assert (reads.running, reads.waiting, reads._held, reads._queues) == (0, 0, {}, {})


async def test_whatever_happens_to_whom_nothing_is_lost() -> None:
    reads, random = lane(slots=4, queue=12, wait=0.02), Random(7)

    async def call(caller: str) -> None:
        with suppress(ServiceError):
            entered = await enter(reads, caller)
            try:
                await asyncio.sleep(random.choice([0, 0.001, 0.03]))
            finally:
                reads.leave(entered, caller)

    for _ in range(40):
        calls = [asyncio.create_task(call(random.choice(["a", "a", "a", "b", "c", ""]))) for _ in range(30)]
        await asyncio.sleep(random.choice([0, 0.001]))
        for task in random.sample(calls, 10):
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (reads.running, reads.waiting, reads._held, reads._queues) == (0, 0, {}, {})
    assert reads.refused


async def test_a_slow_class_is_nothing_to_another() -> None:
    admission = Admission(bounds=dict.fromkeys(BOUNDS, Bounds(slots=1, queue=0, wait=1)))
    await enter(admission.lane("payment"))
    await refused(enter(admission.lane("payment")))
    entered = await enter(admission.lane("read"))
    admission.lane("read").leave(entered)
    _, text = exposition(FAMILIES.values(), "", open_metrics=False)
    assert 'backend_admission_refused_total{class="payment"} 1\n' in text
    assert 'backend_admission_refused_total{class="read"} 0\n' in text
    assert 'backend_admission_running{class="payment"} 1\n' in text


async def test_without_it_nothing_is_refused_and_all_is_counted() -> None:
    admission = Admission(enabled=False)
    for _ in range(1000):
        await enter(admission.lane("login"))
    assert admission.lane("login").admitted == 1000


def test_there_is_a_lane_for_every_class_of_the_contracts_and_no_other() -> None:
    classes = {name.removeprefix("OPERATION_CLASS_").lower() for name, number in OperationClass.items() if number}
    assert set(BOUNDS) == classes == {operation.operation_class for operation in OPERATIONS}
