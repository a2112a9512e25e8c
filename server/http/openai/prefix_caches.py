"""POST /reset_prefix_cache, as vLLM has it."""

import logging

from aiohttp import web

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.backends.api.naming import name_in
from trivet.server.core import Core
from trivet.server.http.answers import empty_answer
from trivet.server.http.openai.prompts import asked_generator
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call

_log = logging.getLogger(__name__)
_WORDS = {"true": True, "1": True, "false": False, "0": False}


class PrefixCaches:
    """The handler."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def reset(self, call: Call) -> web.StreamResponse:
        """Of the model that the query names, or of all."""
        refuse_other_sites(call)
        is_anew = _flag(call, "reset_running_requests")
        _flag(call, "reset_external")  # There is no cache elsewhere, so that is done.
        wanted = call.request.query.get("model")
        found = [
            (name, cache)
            for name, cache in self._core.prefix_caches()
            if wanted in (None, name, name_in(name))
        ]
        if wanted is not None and not found:
            asked_generator(self._core, wanted, call)  # Raises what is wrong with the name.
            raise Unsupported(f"model: `{wanted[:128]}` keeps nothing of what prompts begin with")
        for name, cache in found:
            cache.reset_prefix_cache(is_anew=is_anew)
            _log.info("prefix cache of '%s' reset", name)
        return empty_answer()


def _flag(call: Call, name: str) -> bool:
    given = call.request.query.get(name, "false")
    if given.lower() not in _WORDS:
        raise InvalidRequest(f"{name}: it must be true or false, got {given[:64]!r}")
    return _WORDS[given.lower()]
