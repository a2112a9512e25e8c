"""POST /sleep and /wake_up, GET /is_sleeping, as vLLM has them. What it does with its model,
this does with all that generate text, or with a model of any kind that the query names."""

from aiohttp import web

from trivet.backends.api import InvalidRequest
from trivet.server.core import Core
from trivet.server.http.answers import empty_answer, json_answer
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call
from trivet.server.models.sleeping.resident import TAGS

_LEVELS = ("1", "2")


class SleepRoutes:
    """The handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def sleep(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        query = call.request.query
        if (level := query.get("level", "1")) not in _LEVELS:
            raise InvalidRequest(
                f"level: it must be 1 or 2, got {level[:64]!r}; both free weights and cache, and "
                "the weights come back from the model's files"
            )
        if (mode := query.get("mode", "wait")) != "wait":
            raise InvalidRequest(
                f"mode: it must be 'wait', got {mode[:64]!r}: what has begun is answered first"
            )
        await self._core.sleeping.sleep(self._chosen(call))
        return empty_answer()

    async def wake_up(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        tags = call.request.query.getall("tags", list(TAGS))
        unknown = [tag for tag in tags if tag not in TAGS]
        if unknown:
            raise InvalidRequest(
                f"tags: each must be one of {', '.join(TAGS)}, got {unknown[0][:64]!r}"
            )
        await self._core.sleeping.wake_up(self._chosen(call), tags)
        return empty_answer()

    async def is_sleeping(self, call: Call) -> web.StreamResponse:
        return json_answer({"is_sleeping": self._core.sleeping.is_sleeping(self._chosen(call))})

    def _chosen(self, call: Call) -> list[str]:
        return self._core.sleeping.chosen(call.request.query.get("model", ""))
