"""A journal in a Redis server, for replicas that share no folder: a list of records, and a key that
the one who decides renews."""

from collections.abc import Callable, Iterable
from functools import partial
from uuid import uuid4

import orjson
import redis
from redis.exceptions import RedisError

from trivet.server.rollouts.journal import TAIL, Record, as_json

TIMEOUT_S = 2.0
LEAD_S = 10.0
"""Who has not renewed its key for so long decides no more."""
MOST_LINES = 5000
"""Of a list that is not shortened."""
LIST, LEADER = "trivet:rollouts", "trivet:rollouts:leader"
_RENEW = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('pexpire', KEYS[1], ARGV[2])
end
return redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
_LEAVE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end return 0"


class RedisJournal:
    """One thread at a time uses it. What Redis cannot do now is an OSError."""

    def __init__(self, url: str) -> None:
        """Raises OSError where no Redis answers there."""
        self.client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._name = uuid4().hex
        self._num_read = 0
        self._due_at = MOST_LINES
        self._last: bytes | None = None
        """The last line that was read."""
        self._do(self.client.ping)

    def read(self) -> list[Record]:
        lines = self._behind(max(self._num_read - 1, 0))
        if self._last is not None:
            if lines[:1] == [self._last]:
                del lines[0]
            else:  # Redis has lost the list, or it has become shorter
                lines = self._behind(0)
                self._num_read = 0
                if self._last in lines:
                    self._num_read = len(lines) - lines[::-1].index(self._last)
                    del lines[: self._num_read]
        if lines:
            self._num_read, self._last = self._num_read + len(lines), lines[-1]
        records = (_parsed(line) for line in lines)
        return [record for record in records if record is not None]

    def _behind(self, number: int) -> list[bytes]:
        lines = self._do(lambda: self.client.lrange(LIST, number, -1))
        assert isinstance(lines, list)
        return lines

    def append(self, records: Iterable[Record]) -> None:
        lines = [as_json(record) for record in records]
        self._do(lambda: self.client.rpush(LIST, *lines))

    def lead_s(self) -> float:
        given = (self._name, str(int(LEAD_S * 1000)))
        is_renewed = self._do(lambda: self.client.eval(_RENEW, 1, LEADER, *given)) == 1
        return LEAD_S if is_renewed else 0.0

    def shorten(self, shortened: Callable[[list[Record]], list[Record]]) -> None:
        num_lines = self._do(lambda: self.client.llen(LIST))
        assert isinstance(num_lines, int)
        if num_lines >= self._due_at:
            self._do(lambda: self.client.transaction(partial(self._replace, shortened), LIST))

    def _replace(
        self, shortened: Callable[[list[Record]], list[Record]], pipe: "redis.client.Pipeline"
    ) -> None:
        """In one transaction: what another server adds meanwhile has it begin anew."""
        lines = [line for line in pipe.lrange(LIST, 0, -1) if isinstance(line, bytes)]
        records = shortened([each for each in map(_parsed, lines[:-TAIL]) if each is not None])
        kept = [*map(as_json, records), *lines[-TAIL:]]
        self._due_at = max(MOST_LINES, 2 * len(kept))
        pipe.multi()
        pipe.delete(LIST)
        pipe.rpush(LIST, *kept)

    def close(self) -> None:
        self._do(lambda: self.client.eval(_LEAVE, 1, LEADER, self._name))
        self.client.close()

    def _do(self, ask: Callable[[], object]) -> object:
        try:
            return ask()
        except RedisError as error:
            raise OSError(f"Redis at --rollout-state: {error}") from error


def _parsed(line: bytes) -> Record | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None
