"""POST /tokenize and /detokenize: texts to a model's tokens and back."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from trivet.backends.api import ChatInput, Generator, InvalidRequest
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.body import Body
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.chat_fields import check_template_arguments
from trivet.server.http.openai.fields import DetokenizeFields, TokenizeFields, parse
from trivet.server.http.openai.messages import check_messages, plain_messages
from trivet.server.http.openai.prompts import generator_for
from trivet.server.http.routes import Call

OtherTokenize = Callable[[Call, Body], Awaitable[web.StreamResponse | None]]
"""Another API's handler of /tokenize; None: the body is not of that API."""


class Tokens:
    """The handlers."""

    def __init__(self, core: Core, limits: HttpLimits, other_tokenize: OtherTokenize) -> None:
        self._core = core
        self._limits = limits
        self._other_tokenize = other_tokenize

    async def tokenize(self, call: Call) -> web.StreamResponse:
        """Text or a conversation to token ids."""
        body = await read_json_body(call.request, self._limits)
        other = await self._other_tokenize(call, body)
        if other is not None:
            return other
        fields = parse(TokenizeFields, body)
        fields.check()
        generator = generator_for(self._core, fields.model, call)
        if (fields.prompt is None) == (fields.messages is None):
            raise InvalidRequest("prompt: give either it or messages")
        is_prompt = fields.prompt is not None
        text = fields.prompt if fields.prompt is not None else await _rendered(fields, generator)
        special = is_prompt if fields.add_special_tokens is None else fields.add_special_tokens
        ids = await generator.encode(text, add_special_tokens=special)
        texts = await generator.spellings(ids) if fields.return_token_strs else None
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
        generator = generator_for(self._core, fields.model, call)
        text = await generator.decode(fields.tokens, skip_special_tokens=False)
        return json_answer({"prompt": text})


async def _rendered(fields: TokenizeFields, generator: Generator) -> str:
    check_messages(fields.messages or ())
    check_template_arguments(fields.chat_template_kwargs)
    return await generator.render(
        ChatInput(
            plain_messages(fields.messages or ()),
            tools=fields.tools,
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
            arguments={"documents": fields.documents, **(fields.chat_template_kwargs or {})},
        )
    )
