"""Servers that share keys hold their limits together, over a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path

import pytest
from patience import patience
from redis_site import RedisServer

from trivet.backends.api import InvalidConfig
from trivet.server.auth.errors import RateLimited
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.keys import digest_of
from trivet.server.auth.scopes import Scope
from trivet.server.cost.ledger import Account, Ledger
from trivet.server.security import Security
from trivet.server.settings import Settings
from trivet.server.sharing.exchange import UseExchange
from trivet.server.sharing.redis_totals import RedisTotals

DAY = date(2026, 12, 1)
LIMITED = """
[[keys]]
name = "app"
hash = "sha256:{digest}"
scopes = ["infer"]
{limits}
"""


class Server:
    """One of those that share the keys."""

    def __init__(self, url: str, folder: Path, limits: str) -> None:
        folder.mkdir()
        keys = folder / "keys.toml"
        keys.write_text(LIMITED.format(digest=digest_of("secret").hex(), limits=limits))
        self.now_s = 0.0
        self.keyring = Keyring(keys, monotonic=lambda: self.now_s)
        self.ledger = Ledger(folder / "costs", lambda: DAY, hears_folder=False)
        self.exchange = UseExchange(RedisTotals(url), self.keyring, self.ledger, lambda: DAY)

    def admitted(self, count: int) -> int:
        """How many of so many requests."""
        admitted = 0
        for _ in range(count):
            try:
                self.keyring.admit("secret", Scope.INFER)
            except RateLimited:
                break
            admitted += 1
        return admitted


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
async def pair(
    redis: RedisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[list[Server]]:
    url = f"redis://127.0.0.1:{redis.port}"
    servers = [Server(url, tmp_path / name, request.param) for name in ("one", "two")]
    yield servers
    for server in servers:
        await server.exchange.close()
        server.ledger.close()


@pytest.mark.parametrize("pair", ["requests_per_day = 10"], indirect=True)
async def test_a_quota_is_that_of_all_servers_together(pair: list[Server]) -> None:
    one, two = pair
    assert one.admitted(7) == 7
    await one.exchange.once()
    await two.exchange.once()

    assert two.admitted(9) == 3
    await two.exchange.once()
    await one.exchange.once()
    assert one.admitted(1) == 0


@pytest.mark.parametrize("pair", ["requests_per_second = 4"], indirect=True)
async def test_a_rate_is_that_of_all_servers_together(pair: list[Server]) -> None:
    one, two = pair
    for server in pair:
        await server.exchange.once()
    assert one.admitted(3) == 3
    await one.exchange.once()
    await two.exchange.once()

    assert two.admitted(9) == 1
    two.now_s += 1
    assert two.admitted(9) == 4


@pytest.mark.parametrize("pair", ["cost_per_day = 5"], indirect=True)
async def test_a_budget_is_that_of_all_servers_together(pair: list[Server]) -> None:
    one, two = pair
    for server in pair:
        await server.exchange.once()
    one.ledger.add(Account("model", 1, "app"), 1.0, 3.5)
    await one.exchange.once()
    await two.exchange.once()

    assert two.ledger.spent_today("app") == 3.5
    assert one.ledger.spent_today("app") == 3.5


@pytest.mark.parametrize("pair", ["requests_per_day = 10"], indirect=True)
async def test_without_redis_each_server_holds_the_limits_itself(
    pair: list[Server], redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = pair
    assert one.admitted(4) == 4
    for server in (one, two):
        await server.exchange.once()
    redis.stop()

    assert two.admitted(9) == 6
    for server in (one, two):
        assert not await server.exchange.once()
    assert "each server holds the limits of keys by itself" in caplog.text

    redis.start()
    caplog.set_level("INFO")
    for server in (two, one):
        assert await server.exchange.once()
    assert "those of all servers together again" in caplog.text
    assert one.admitted(1) == 0


async def test_servers_that_are_told_a_redis_share_what_keys_use(
    redis: RedisServer, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(LIMITED.format(digest=digest_of("secret").hex(), limits="requests_per_day = 9"))
    url = f"redis://127.0.0.1:{redis.port}"
    given = {"auth_keys_file": str(keys), "limits_redis": url}
    one, two = (Security(Settings.of(given)) for _ in range(2))
    one.start()
    two.start()
    assert one.keyring is not None
    assert two.keyring is not None
    for _ in range(4):
        one.keyring.admit("secret", Scope.INFER)

    left = two.keyring.allowances()["app"].headers
    async with asyncio.timeout(patience()):
        while left()["x-ratelimit-remaining-requests"] != "5":
            await asyncio.sleep(0.05)
    await one.close()
    await two.close()


def test_a_redis_for_limits_needs_keys() -> None:
    with pytest.raises(InvalidConfig, match="needs --auth-keys-file"):
        Security(Settings.of({"limits_redis": "redis://localhost"}))


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text("")
    with pytest.raises(InvalidConfig, match="--limits-redis=localhost:6379"):
        Security(Settings.of({"auth_keys_file": str(keys), "limits_redis": "localhost:6379"}))
