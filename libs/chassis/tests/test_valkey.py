"""The versioned cache and the hot pipelined, on a real Valkey."""

from __future__ import annotations

import asyncio
import gc
import random
import uuid
from collections.abc import AsyncIterator

import pytest
from chassis.cache import VersionedCache
from chassis.valkey import PipelinedClient, Script, ValkeyError
from redis.asyncio import Redis

from conftest import Platform
from devstack import services


@pytest.fixture
def url(platform: Platform) -> str:
    return services.valkey_url(platform.layout, platform.secrets)


@pytest.fixture
async def client(url: str) -> AsyncIterator[Redis]:
    made = Redis.from_url(url, driver_info=None)
    yield made
    await made.aclose()


@pytest.fixture
async def pipelined(url: str) -> AsyncIterator[PipelinedClient]:
    made = PipelinedClient(url)
    yield made
    await made.close()


@pytest.fixture
def cache(pipelined: PipelinedClient) -> VersionedCache:
    return VersionedCache(pipelined, f"test:{uuid.uuid4()}:", ttl=60)


class TestVersionedCache:
    async def test_answers_what_it_was_offered(self, cache: VersionedCache) -> None:
        assert await cache.get("a") is None
        await cache.offer("a", 1, b"one: with a colon")
        assert await cache.get("a") == b"one: with a colon"

    async def test_a_floor_hides_older_copies_and_refuses_them(self, cache: VersionedCache) -> None:
        await cache.offer("a", 1, b"one")
        await cache.raise_floor({"a": 2})
        assert await cache.get("a") is None
        await cache.offer("a", 1, b"one")
        assert await cache.get("a") is None
        await cache.offer("a", 2, b"two")
        assert await cache.get("a") == b"two"
        await cache.raise_floor({"a": 1})
        assert await cache.get("a") == b"two"

    async def test_readers_that_race_with_writers_never_bring_the_old_back(self, cache: VersionedCache) -> None:
        """Many rounds of the race: read the database, lose time, offer; meanwhile a writer commits."""
        database = {"version": 1}
        chance = random.Random(1)

        async def pause() -> None:
            await asyncio.sleep(chance.random() * 0.002)

        async def write() -> None:
            version = database["version"] + 1
            await cache.raise_floor({"a": version})
            await pause()
            database["version"] = version
            seen = await cache.get("a")
            assert seen is None or int(seen) >= version

        async def read() -> None:
            committed = database["version"]
            seen = await cache.get("a")
            if seen is None:
                version = database["version"]
                await pause()
                await cache.offer("a", version, str(version).encode())
            else:
                assert int(seen) >= committed

        async def writing() -> None:
            for _ in range(100):
                await write()

        async def reading() -> None:
            for _ in range(200):
                await read()

        await asyncio.gather(writing(), *(reading() for _ in range(4)))

    async def test_both_kinds_of_entries_expire(self, cache: VersionedCache, client: Redis) -> None:
        await cache.offer("a", 1, b"x")
        await cache.raise_floor({"b": 1})
        ttls = [await client.ttl(key) async for key in client.scan_iter("test:*") if key.endswith((b":a", b":b"))]
        assert len(ttls) >= 2
        assert all(0 < ttl <= 60 for ttl in ttls)

    async def test_without_valkey_a_read_is_a_miss_and_a_floor_is_an_error(self) -> None:
        cache = VersionedCache(PipelinedClient("redis://127.0.0.1:1/0"), "x:", ttl=1)
        assert await cache.get("a") is None
        await cache.offer("a", 1, b"x")
        with pytest.raises(Exception, match="UNAVAILABLE"):
            await cache.raise_floor({"a": 1})


class TestPipelinedClient:
    async def test_reads_what_is_there_and_what_is_not(self, pipelined: PipelinedClient, client: Redis) -> None:
        key = f"test:{uuid.uuid4()}"
        await client.set(key, b"\x00\r\n\xff", ex=60)
        assert await pipelined.get(key) == b"\x00\r\n\xff"
        assert await pipelined.mget(key, key + "x", key) == [b"\x00\r\n\xff", None, b"\x00\r\n\xff"]

    async def test_a_thousand_at_once_get_their_own_answers(self, pipelined: PipelinedClient, client: Redis) -> None:
        prefix = f"test:{uuid.uuid4()}:"
        await client.mset({f"{prefix}{n}": n for n in range(1000)})
        answers = await asyncio.gather(*(pipelined.get(f"{prefix}{n}") for n in range(1000)))
        assert [int(answer or 0) for answer in answers] == list(range(1000))

    async def test_a_cancelled_read_does_not_shift_the_answers(self, pipelined: PipelinedClient, client: Redis) -> None:
        prefix = f"test:{uuid.uuid4()}:"
        await client.mset({f"{prefix}{n}": n for n in range(100)})
        tasks = [asyncio.ensure_future(pipelined.get(f"{prefix}{n}")) for n in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(a, asyncio.CancelledError) or a == str(n).encode() for n, a in enumerate(answers))

    async def test_a_cut_connection_is_replaced_by_the_next_command(
        self, pipelined: PipelinedClient, client: Redis
    ) -> None:
        await pipelined.get("x")
        mine = await pipelined._send("CLIENT", "ID")
        await client.client_kill_filter(_id=str(mine))
        await asyncio.sleep(0.05)
        assert await pipelined.get("test:nothing") is None

    async def test_an_error_reply_is_raised_and_the_connection_lives(
        self, pipelined: PipelinedClient, client: Redis
    ) -> None:
        key = f"test:{uuid.uuid4()}"
        await client.lpush(key, "x")
        with pytest.raises(ValkeyError, match="WRONGTYPE"):
            await pipelined.get(key)
        assert await pipelined.get("test:nothing") is None
        await client.delete(key)

    async def test_a_server_that_does_not_answer_is_given_up(self) -> None:
        hung_up = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1024):
                pass
            # Before the loop ends: a transport that is only collected warns from wherever the collector runs.
            writer.close()
            await writer.wait_closed()
            hung_up.set()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            pipelined = PipelinedClient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
            with pytest.raises(ValkeyError, match="does not answer"):
                await pipelined.get("x")
            await pipelined.close()
            await hung_up.wait()

    async def test_a_connection_that_is_being_made_ends_with_its_client(self) -> None:
        """Also when nobody waits for it any more; what becomes of it is then nobody's error."""
        complaints: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        hung_up = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1024):
                pass
            writer.close()
            await writer.wait_closed()
            hung_up.set()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            url = f"redis://user:password@127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
            for timeout, waiting in ((30, 0.05), (0.1, 0.3)):
                pipelined = PipelinedClient(url, timeout)
                asking = asyncio.create_task(pipelined.get("x"))
                await asyncio.sleep(0.05)
                asking.cancel()
                await asyncio.sleep(waiting)
                await pipelined.close()
                await hung_up.wait()
                hung_up.clear()
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []
        assert [task for task in asyncio.all_tasks() if "PipelinedClient._connect" in repr(task)] == []

    async def test_a_script_runs_with_its_keys_and_arguments_known_or_not(
        self, pipelined: PipelinedClient, client: Redis
    ) -> None:
        key = f"test:{uuid.uuid4()}"
        script: Script[list[bytes | int]] = Script(
            f"-- {key}\nreturn {{redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2], redis.call('TTL', KEYS[1])}}"
        )
        await pipelined.set(key, b"40", 30)
        assert (await client.script_exists(script.digest)) == [False]
        assert await pipelined.evaluate(script, [key], [1, b"\x00\r\n"]) == [41, b"\x00\r\n", 30]
        assert (await client.script_exists(script.digest)) == [True]
        assert await pipelined.evaluate(script, [key], [1, "x"]) == [42, b"x", 30]
        with pytest.raises(ValkeyError, match="not an integer"):
            await pipelined.evaluate(script, [key], ["y", "x"])
        await pipelined.ping()

    def test_a_scheme_it_does_not_speak_is_said_so(self) -> None:
        with pytest.raises(ValueError, match="redis, rediss or unix"):
            PipelinedClient("http://127.0.0.1/0")

    async def test_nothing_listens(self) -> None:
        with pytest.raises(ValkeyError, match="cannot be reached"):
            await PipelinedClient("redis://127.0.0.1:1/0").get("x")
