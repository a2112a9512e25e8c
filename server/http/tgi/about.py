"""GET /info, POST /tokenize and /chat_tokenize: what surrounds generation."""

from typing import Any

import orjson
from aiohttp import web

from trivet import __version__
from trivet.backends.api import (
    ChatInput,
    Generator,
    InvalidRequest,
    ServingError,
    Token,
    Unsupported,
)
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.body import Body
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.messages import check_messages, plain_messages
from trivet.server.http.routes import Call
from trivet.server.http.tgi.errors import TemplateError, refusal
from trivet.server.http.tgi.fields import (
    MAX_BEST_OF,
    MAX_STOPS,
    ChatTokenizeFields,
    TokenizeFields,
)
from trivet.server.http.tgi.models import choose


class About:
    """The handlers."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def info(self, call: Call) -> web.StreamResponse:
        """What serves here and within which limits."""
        name, generator = choose(self._core, call, None)
        return json_answer(_info(name, generator))

    async def tokenize(self, call: Call, body: Body) -> web.StreamResponse | None:
        """Answers a body sent to /tokenize if it is of this API: if it has `inputs`. None: it is
        not; the path is shared."""
        if not _has_inputs(body):
            return None
        try:
            return await self._tokenized(call, body)
        except ServingError as error:
            return refusal(error)

    async def _tokenized(self, call: Call, body: Body) -> web.StreamResponse:
        fields = parse(TokenizeFields, body)
        if not fields.inputs:
            raise InvalidRequest("inputs: it cannot be empty")
        _, generator = choose(self._core, call, fields.model)
        tokens = await generator.tokenize(
            fields.inputs, add_special_tokens=fields.add_special_tokens
        )
        return json_answer(_tokens(tokens))

    async def chat_tokenize(self, call: Call) -> web.StreamResponse:
        """A conversation as the model's template writes it, and its tokens."""
        fields = parse(ChatTokenizeFields, await read_json_body(call.request, self._limits))
        check_messages(fields.messages)
        _, generator = choose(self._core, call, fields.model)
        try:
            text = await generator.render(
                ChatInput(
                    plain_messages(fields.messages),
                    tools=fields.tools,
                    add_generation_prompt=fields.add_generation_prompt,
                    arguments=fields.chat_template_kwargs,
                )
            )
        except (InvalidRequest, Unsupported) as error:
            raise TemplateError(error.message) from None
        tokens = await generator.tokenize(text, add_special_tokens=False)
        return json_answer({"tokenize_response": _tokens(tokens), "templated_text": text})


def _has_inputs(body: Body) -> bool:
    if b'"inputs"' not in bytes(body):
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and "inputs" in document


def _tokens(tokens: list[Token]) -> list[dict[str, Any]]:
    return [
        {"id": token.id, "text": token.text, "start": token.start, "stop": token.stop}
        for token in tokens
    ]


def _info(name: str, generator: Generator) -> dict[str, Any]:
    info = generator.info
    return {
        "model_id": name,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "model_dtype": f"torch.{info.dtype}",
        "model_device_type": info.device,
        "max_concurrent_requests": info.max_num_requests,
        "max_best_of": MAX_BEST_OF,
        "max_stop_sequences": MAX_STOPS,
        "max_input_tokens": info.max_model_len - 1,
        "max_total_tokens": info.max_model_len,
        # TGI's defaults: its clients expect these two, nothing here depends on them.
        "validation_workers": 2,
        "max_client_batch_size": 4,
        "router": "trivet",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
