"""GET /v1/models, /tokenizer_info, /version and /load: what there is."""

from typing import Any

from aiohttp import web

from trivet import __version__
from trivet.backends.api import Generator
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.prompts import generator_for
from trivet.server.http.routes import Call


class Models:
    """The handlers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._started_s = docs.now_s()

    async def list(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """All models that generate, and those that read texts."""
        entries = {
            name: self._generator_document(name, each)
            for name, each in self._core.generators().items()
        }
        for name, info in self._core.encoders().items():
            entries[name] = self._document(name, info.max_tokens)
        data = [entries[name] for name in sorted(entries)]
        return json_answer({"object": "list", "data": data})

    async def one(self, call: Call) -> web.StreamResponse:
        """One of them."""
        info = self._core.encoders().get(call.model)
        if info is not None:
            return json_answer(self._document(call.model, info.max_tokens))
        generator = generator_for(self._core, call.model, call)
        return json_answer(self._generator_document(call.model, generator))

    def _generator_document(self, name: str, generator: Generator) -> dict[str, Any]:
        # What a model's makers recommend changes outputs: it is told, too.
        recommended = dict(generator.info.sampling_defaults)
        document = self._document(name, generator.info.max_model_len)
        parent = generator.info.parent
        if parent:
            document |= {"parent": parent, "root": parent}
        return {**document, "sampling_defaults": recommended}

    def _document(self, name: str, max_tokens: int) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started_s,
            "owned_by": "trivet",
            "root": name,
            "parent": None,
            "max_model_len": max_tokens,
            "permission": [],
        }

    async def version(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The server's version."""
        return json_answer({"version": __version__})

    async def load(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """How many requests the language models have, running and waiting."""
        stats = [each.stats for each in self._core.measured().values()]
        count = sum(each.get("running", 0) + each.get("waiting", 0) for each in stats)
        return json_answer({"server_load": int(count)})

    async def tokenizer_info(self, call: Call) -> web.StreamResponse:
        """What a client must know to tokenise itself, with the names of tokenizer_config.json."""
        name = call.request.query.get("model")
        info = generator_for(self._core, name, call).info
        return json_answer(
            {
                "model_max_length": info.max_model_len,
                "vocab_size": info.vocabulary_size,
                "eos_token_id": list(info.eos_token_ids),
                **info.special_tokens,
                "chat_template": info.chat_template or None,
            }
        )
