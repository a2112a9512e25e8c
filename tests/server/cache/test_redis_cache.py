"""The Redis cache against a real Redis server: shared, and harmless when that fails."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from patience import patience
from redis_site import RedisServer

from trivet.backends.api import Tensor
from trivet.server.cache import redis_cache
from trivet.server.cache.entry import Entry, decode, encode
from trivet.server.cache.redis_cache import RedisCache

ENTRY = Entry(
    [
        Tensor.of("OUT", np.array([[1.5, 2]], np.float32)),
        Tensor.of("TEXT", np.array([b"x\0y", b""], dtype=object)),
        Tensor.of("NONE", np.zeros((0, 3), np.int8)),
    ],
    {"flag": True, "count": 3, "rate": 0.5, "name": "n"},
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"), password="swordfish").start()
    yield made
    made.stop()


@pytest.fixture
async def cache(server: RedisServer) -> AsyncIterator[RedisCache]:
    made = RedisCache(server.options)
    yield made
    await made.close()


async def look(cache: RedisCache, key: bytes) -> Entry | None:
    answer: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    cache.find(key, answer.set_result)
    return await asyncio.wait_for(answer, patience())


async def kept(cache: RedisCache, key: bytes) -> Entry:
    for _ in range(1000):
        if (entry := await look(cache, key)) is not None:
            return entry
    raise AssertionError("never kept")


def assert_same(found: Entry, wanted: Entry) -> None:
    assert found.parameters == wanted.parameters
    assert [repr(tensor) for tensor in found.outputs] == [repr(t) for t in wanted.outputs]
    for one, other in zip(found.outputs, wanted.outputs, strict=True):
        assert one.numpy().tolist() == other.numpy().tolist()


async def test_another_server_s_answers_are_found(server: RedisServer, cache: RedisCache) -> None:
    assert await look(cache, b"a") is None
    cache.keep(b"a", ENTRY)
    assert_same(await kept(cache, b"a"), ENTRY)
    other = RedisCache(server.options)
    found = await look(other, b"a")
    await other.close()
    assert found is not None
    assert_same(found, ENTRY)


async def test_what_somebody_else_wrote_under_a_key_is_a_miss(cache: RedisCache) -> None:
    await cache._client.set(redis_cache.PREFIX + b"b", b"\xff\xff no message")
    assert await look(cache, b"b") is None


async def test_a_wrong_password_is_a_miss(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    cache = RedisCache({**server.options, "password": "wrong"})
    assert await look(cache, b"a") is None
    await cache.close()
    assert "the Redis cache failed" in caplog.text
    assert "swordfish" not in caplog.text


async def test_a_server_that_is_gone_is_a_miss_and_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path).start()
    cache = RedisCache(server.options)
    cache.keep(b"a", ENTRY)
    assert_same(await kept(cache, b"a"), ENTRY)
    server.stop()
    for _ in range(50):
        assert await look(cache, b"a") is None
    assert caplog.text.count("the Redis cache failed") == 1
    server.start()
    monkeypatch.setattr(redis_cache, "PAUSE_S", 0.0)
    cache._paused_until_s = 0.0
    cache.keep(b"a", ENTRY)
    assert_same(await kept(cache, b"a"), ENTRY)
    await cache.close()
    server.stop()


async def test_a_server_that_does_not_answer_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_cache, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = RedisCache({"host": "127.0.0.1", "port": str(silent.getsockname()[1])})
        assert await look(cache, b"a") is None
        await cache.close()


def test_entries_survive_the_way_to_the_store_and_back() -> None:
    found = decode(encode(ENTRY))
    assert found is not None
    assert_same(found, ENTRY)
    assert decode(b"\x0f") is None
