"""GET /v1/models, /version and /load, POST /tokenize and /detokenize: what surrounds generation."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from trivet import __version__
from trivet.backends.api import ChatInput, Generator, InvalidRequest, ModelNotFound
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.body import Body
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai import documents as docs
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.chat_fields import check_template_arguments
from trivet.server.http.openai.errors import answers_errors
from trivet.server.http.openai.fields import DetokenizeFields, TokenizeFields, parse
from trivet.server.http.openai.messages import check_messages, plain_message
from trivet.server.http.routes import Call, Route

OtherTokenize = Callable[[Call, Body], Awaitable[web.StreamResponse | None]]
"""Another API's handler of /tokenize; None: the body is not of that API."""


class Models:
    """The handlers."""

    def __init__(self, core: Core, limits: HttpLimits, other_tokenize: OtherTokenize) -> None:
        self._other_tokenize = other_tokenize
        self._core = core
        self._limits = limits
        self._started_s = docs.now_s()

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/models", answers_errors(self.list)),
            Route("GET", "/v1/models/{model}", answers_errors(self.one)),
            Route("POST", "/tokenize", answers_errors(self.tokenize)),
            Route("POST", "/detokenize", answers_errors(self.detokenize)),
            Route("GET", "/tokenizer_info", answers_errors(self.tokenizer_info)),
            Route("GET", "/version", answers_errors(self.version)),
            Route("GET", "/load", answers_errors(self.load)),
        ]

    async def list(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """All models that generate."""
        found = self._core.generators()
        data = [self._document(name, generator) for name, generator in sorted(found.items())]
        return json_answer({"object": "list", "data": data})

    async def one(self, call: Call) -> web.StreamResponse:
        """One of them."""
        return json_answer(self._document(call.model, self._generator(call, call.model)))

    def _document(self, name: str, generator: Generator) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started_s,
            "owned_by": "trivet",
            "root": name,
            "parent": None,
            "max_model_len": generator.info.max_model_len,
            "permission": [],
            # What a model's makers recommend changes outputs: it is told, too.
            "sampling_defaults": dict(generator.info.sampling_defaults),
        }

    async def version(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The server's version."""
        return json_answer({"version": __version__})

    async def load(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """How many requests the language models have, running and waiting."""
        stats = [each.stats for each in self._core.measured().values()]
        count = sum(each.get("running", 0) + each.get("waiting", 0) for each in stats)
        return json_answer({"server_load": int(count)})

    async def tokenize(self, call: Call) -> web.StreamResponse:
        """Text or a conversation to token ids."""
        body = await read_json_body(call.request, self._limits)
        other = await self._other_tokenize(call, body)
        if other is not None:
            return other
        fields = parse(TokenizeFields, body)
        fields.check()
        generator = self._generator(call, fields.model)
        if (fields.prompt is None) == (fields.messages is None):
            raise InvalidRequest("prompt: give either it or messages")
        is_prompt = fields.prompt is not None
        text = fields.prompt if fields.prompt is not None else await _rendered(fields, generator)
        special = is_prompt if fields.add_special_tokens is None else fields.add_special_tokens
        ids = await generator.encode(text, add_special_tokens=special)
        texts = None
        if fields.return_token_strs:
            texts = [await generator.decode([i], skip_special_tokens=False) for i in ids]
        return json_answer(
            {
                "count": len(ids),
                "max_model_len": generator.info.max_model_len,
                "tokens": ids,
                "token_strs": texts,
            }
        )

    async def detokenize(self, call: Call) -> web.StreamResponse:
        """Token ids to text."""
        fields = parse(DetokenizeFields, await read_json_body(call.request, self._limits))
        generator = self._generator(call, fields.model)
        text = await generator.decode(fields.tokens, skip_special_tokens=False)
        return json_answer({"prompt": text})

    async def tokenizer_info(self, call: Call) -> web.StreamResponse:
        """What a client must know to tokenise itself, with the names of tokenizer_config.json."""
        info = self._generator(call, call.request.query.get("model")).info
        return json_answer(
            {
                "model_max_length": info.max_model_len,
                "vocab_size": info.vocabulary_size,
                "eos_token_id": list(info.eos_token_ids),
                **info.special_tokens,
                "chat_template": info.chat_template or None,
            }
        )

    def _generator(self, call: Call, name: str | None) -> Generator:
        """The model named, or the only one."""
        if name is None:
            found = self._core.unnamed_generators()
            if len(found) != 1:
                raise ModelNotFound(f"model: {len(found)} models generate text; name one of them")
            (name,) = found
        return self._core.generator(name, key=call.request_id)


async def _rendered(fields: TokenizeFields, generator: Generator) -> str:
    check_messages(fields.messages or ())
    check_template_arguments(fields.chat_template_kwargs)
    return await generator.render(
        ChatInput(
            [plain_message(message) for message in fields.messages or ()],
            tools=fields.tools,
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
            arguments=fields.chat_template_kwargs,
        )
    )
