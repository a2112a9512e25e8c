"""The sums in a Redis server: a hash for each day, which goes two days after its first use."""

from collections.abc import Sequence

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from trivet.backends.api import InvalidConfig
from trivet.server.sharing.totals import News

TIMEOUT_S = 0.5
_KEPT_S = 2 * 86_400
_PREFIX = "trivet:used:"
_EXCHANGE = """
local sums = {}
for at = 2, #ARGV, 3 do
  local sum = tonumber(redis.call('hget', KEYS[1], ARGV[at]) or '0')
  sum = math.max(sum, tonumber(ARGV[at + 2])) + tonumber(ARGV[at + 1])
  sums[#sums + 1] = string.format('%.17g', sum)
  redis.call('hset', KEYS[1], ARGV[at], sums[#sums])
end
redis.call('expire', KEYS[1], ARGV[1])
return sums
"""


class RedisTotals:
    """Owned by the event loop."""

    def __init__(self, url: str) -> None:
        """Raises InvalidConfig."""
        try:
            self._client = redis.asyncio.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                # What has not been said is said the next time.
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise InvalidConfig(
                f"--limits-redis={url}: {error}; give redis://[USER:PASSWORD@]HOST:PORT/DB"
            ) from None

    async def exchange(self, day: str, said: Sequence[tuple[str, News]]) -> list[float]:
        """Adds what is said of each sum of a day; returns the sums. Raises OSError."""
        arguments = [str(_KEPT_S)]
        for name, news in said:
            arguments += [name, repr(news.added), repr(news.known)]
        try:
            sums = await self._client.eval(_EXCHANGE, 1, _PREFIX + day, *arguments)
        except RedisError as error:
            raise OSError(str(error)) from error
        return [float(each) for each in sums]

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.aclose()
