"""Requests of Ollama's as the chats and prompts that they are."""

import base64
import binascii
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import orjson

from trivet.backends.api import GenerateRequest, Generator, InvalidRequest
from trivet.server.http.generation import Outputs
from trivet.server.http.ollama.fields import (
    MAX_STOPS,
    AskFields,
    Format,
    OllamaChatFields,
    OllamaMessageFields,
    OllamaPromptFields,
)
from trivet.server.http.openai import chat_fields
from trivet.server.http.openai.grammars import JsonSchema, ResponseFormat
from trivet.server.http.openai.sampling_fields import CompletionFields

_KINDS = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"RIFF", "webp"))
_HEAD_CHARACTERS = 16


class OllamaChat(chat_fields.ChatFields):
    """A chat with the limits of this API."""

    max_stops: ClassVar[int] = MAX_STOPS
    fits_limit: ClassVar[bool] = True


class OllamaPrompt(CompletionFields):
    """A prompt with them."""

    max_stops: ClassVar[int] = MAX_STOPS


def chat_of(fields: OllamaChatFields) -> OllamaChat:
    """Raises InvalidRequest, Unsupported."""
    return _chat(fields, messages_of(fields.messages), tools=fields.tools or None)


def chat_of_prompt(fields: OllamaPromptFields) -> OllamaChat:
    """What /api/generate asks, as a conversation of one message. Raises InvalidRequest."""
    before = [OllamaMessageFields(role="system", content=fields.system)] if fields.system else []
    asked = OllamaMessageFields(role="user", content=fields.prompt, images=fields.images)
    return _chat(fields, messages_of([*before, asked]))


def _chat(fields: AskFields, messages: list[dict[str, Any]], **more: Any) -> OllamaChat:
    think = fields.think
    is_level = isinstance(think, str)
    chat = OllamaChat(
        model=fields.model,
        messages=messages,
        response_format=_format(fields.format),
        include_reasoning=think is not False,
        reasoning_effort=think if isinstance(think, str) else None,
        chat_template_kwargs=None if think is None or is_level else {"enable_thinking": think},
        **fields.sampling(),
        **more,
    )
    chat.check()
    return chat


def _format(given: Format) -> ResponseFormat | None:
    if not given:
        return None
    if isinstance(given, str):
        return ResponseFormat(type="json_object")
    schema = JsonSchema.model_validate({"schema": given})
    return ResponseFormat(type="json_schema", json_schema=schema)


def messages_of(given: Sequence[OllamaMessageFields]) -> list[dict[str, Any]]:
    """The conversation in OpenAI's form. Answers of tools come here in the order of their calls;
    there each names its call. Raises InvalidRequest."""
    found: list[dict[str, Any]] = []
    open_calls: deque[str] = deque()
    for index, each in enumerate(given):
        where = f"messages[{index}]"
        message: dict[str, Any] = {"role": each.role, "content": _content(where, each)}
        if each.thinking:
            message["reasoning_content"] = each.thinking
        if each.tool_calls:
            calls = [_call(where, len(found), *pair) for pair in enumerate(each.tool_calls)]
            open_calls = deque(call["id"] for call in calls)
            message["tool_calls"] = calls
        if each.role == "tool":
            own = open_calls.popleft() if open_calls else "call_0_0"
            message["tool_call_id"] = each.tool_call_id or own
            message |= {"name": each.tool_name} if each.tool_name else {}
        found.append(message)
    return found


def _content(where: str, message: OllamaMessageFields) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    addresses = (
        _address(f"{where}.images[{number}]", image) for number, image in enumerate(message.images)
    )
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": address}} for address in addresses
    ]
    return [*parts, {"type": "text", "text": message.content}]


def _address(where: str, image: str) -> str:
    """The image as an address that holds it."""
    try:
        head = base64.b64decode(image[:_HEAD_CHARACTERS], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{where}: it is no base64") from None
    for begin, kind in _KINDS:
        if head.startswith(begin):
            return f"data:image/{kind};base64,{image}"
    raise InvalidRequest(f"{where}: it must be a PNG, JPEG or WebP file in base64")


def _call(where: str, place: int, number: int, call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    arguments = function.get("arguments", {}) if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, dict):
        raise InvalidRequest(
            f"{where}.tool_calls[{number}].function: it must be an object with a name and arguments"
        )
    text = orjson.dumps(arguments).decode()
    called = {"name": function.get("name"), "arguments": text}
    return {"id": f"call_{place}_{number}", "type": "function", "function": called}


class Continuation:
    """A prompt that the model reads as it is."""

    def __init__(self, fields: OllamaPromptFields, generator: Generator, answer_id: str) -> None:
        """Raises InvalidRequest, Unsupported."""
        self._fields = OllamaPrompt(
            model=fields.model,
            prompt=fields.prompt,
            response_format=_format(fields.format),
            **fields.sampling(),
        )
        self._text = fields.prompt
        self._generator = generator
        self._id = answer_id
        self.prompt: list[int] = []
        self.outputs = Outputs()

    async def start(self) -> None:
        """Reads and submits. Raises InvalidRequest."""
        info = self._generator.info
        sampling = self._fields.sampling(self._fields.max_tokens, None, info.sampling_defaults)
        text = await self._generator.compose(self._text)
        self.prompt = await self._generator.encode(text, add_special_tokens=True)
        self.outputs.start(self._generator, GenerateRequest(self._id, self.prompt, sampling))
