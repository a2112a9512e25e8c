"""GET /v1/models in Anthropic's form, which clients ask for by a header."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from trivet.backends.api import Generator, InvalidRequest
from trivet.server.core import Generators
from trivet.server.http.anthropic.errors import NamedAnswer, answers_errors
from trivet.server.http.openai.prompts import generator_for
from trivet.server.http.routes import Call, Handler

_VERSION = "anthropic-version"
_MOST = 1000
_USUAL = 20
"""Models of a page."""


def by_version(handler: Handler, anthropic: Handler) -> Handler:
    """The handler of a path that two APIs share: Anthropic's clients name their version."""
    guarded = answers_errors(anthropic)

    async def either(call: Call) -> web.StreamResponse:
        return await (guarded if _VERSION in call.request.headers else handler)(call)

    return either


class AnthropicModels:
    """The handlers."""

    def __init__(self, core: Generators) -> None:
        self._core = core
        self._started = datetime.now(UTC).replace(microsecond=0).isoformat()

    async def list(self, call: Call) -> web.StreamResponse:
        """Models that generate, a page of them."""
        models = self._core.generators()
        names = sorted(models)
        page, has_more = _page(names, call.request)
        data = [self._document(name, models[name]) for name in page]
        document = {
            "data": data,
            "has_more": has_more,
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        return NamedAnswer((orjson.dumps(document),))

    async def one(self, call: Call) -> web.StreamResponse:
        """One of them."""
        generator = generator_for(self._core, call.model, call)
        return NamedAnswer((orjson.dumps(self._document(call.model, generator)),))

    def _document(self, name: str, generator: Generator) -> dict[str, Any]:
        most = generator.info.max_model_len
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": self._started,
            "lifecycle": "active",
            "max_input_tokens": most,
            "max_tokens": most,
        }


def _page(names: Sequence[str], request: web.BaseRequest) -> tuple[Sequence[str], bool]:
    """Those behind `after_id` or before `before_id`, at most `limit`; and whether that are not all.
    Raises InvalidRequest."""
    query = request.query
    limit = query.get("limit", str(_USUAL))
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= len(str(_MOST))
    if not is_number or not 1 <= int(limit) <= _MOST:
        raise InvalidRequest(f"limit: it must be a number from 1 to {_MOST}, got {limit[:64]!r}")
    count = int(limit)
    if "before_id" in query:
        before = [name for name in names if name < query["before_id"]]
        return before[-count:], len(before) > count
    after = [name for name in names if name > query.get("after_id", "")]
    return after[:count], len(after) > count
