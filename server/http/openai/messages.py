"""Conversations: what may be in them, and the form that chat templates expect."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trivet.backends.api import Image, InvalidRequest

Message = Mapping[str, Any]
_ROLES = {"system", "developer", "user", "assistant", "tool"}
_IMAGE = "image_url"
_ADDRESS = re.compile(r"data:image/(?:png|jpe?g|webp);base64,", re.IGNORECASE)
_SHOWN = 40
"""Characters of an address that an error tells."""


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for what is no conversation of texts and images."""
    for index, message in enumerate(messages):
        check_message(f"messages[{index}]", message)


def check_message(where: str, message: Message) -> None:
    """Raises InvalidRequest for one that is none; `where` is its place in the request."""
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise InvalidRequest(f"{where}.role: it must be one of {', '.join(sorted(_ROLES))}")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise InvalidRequest(f"{where}.tool_call_id: a tool message must have it")
    if content is None and (role != "assistant" or not message.get("tool_calls")):
        raise InvalidRequest(f"{where}.content: it is missing")
    if content is not None and not isinstance(content, str | list):
        raise InvalidRequest(f"{where}.content: it must be a text or a list of parts")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        _check_part(f"{where}.content[{number}]", part, role)
    _check_calls(f"{where}.tool_calls", message.get("tool_calls"))


def _check_part(where: str, part: object, role: object) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("text", _IMAGE):
        raise InvalidRequest(f"{where}.type: only text and image_url parts are offered")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise InvalidRequest(f"{where}.text: it must be a text")
    if kind == _IMAGE:
        _check_address(f"{where}.image_url.url", _address(part))
        if role != "user":
            raise InvalidRequest(f"{where}.type: images are taken in the user's messages alone")


def _check_address(where: str, address: object) -> None:
    if not isinstance(address, str):
        raise InvalidRequest(f"{where}: it must be a text")
    if not _ADDRESS.match(address):
        raise InvalidRequest(
            f"{where}: images are taken from addresses that begin with data:image/png;base64, or "
            "the same of jpeg or webp: nothing is fetched, and no file is read "
            f"(got {address[:_SHOWN]!r})"
        )


def _address(part: Message) -> object:
    """In OpenAI's form, or in that of its Responses API."""
    given = part.get(_IMAGE)
    return given.get("url") if isinstance(given, dict) else given


def _check_calls(where: str, calls: object) -> None:
    if not isinstance(calls, list | None):
        raise InvalidRequest(f"{where}: it must be a list")
    for number, call in enumerate(calls or ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequest(f"{where}[{number}].function.name: it must be a text")
        arguments = function.get("arguments")
        if not isinstance(arguments, str) or not isinstance(_parsed(arguments), dict):
            raise InvalidRequest(
                f"{where}[{number}].function.arguments: it must be the text of a JSON object"
            )


def _parsed(arguments: str) -> object:
    try:
        return orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return None


def plain_messages(messages: Sequence[Message]) -> list[Message]:
    """A checked conversation, as generators take it."""
    return [plain_message(each, f"messages[{index}]") for index, each in enumerate(messages)]


def plain_message(message: Message, where: str = "messages") -> Message:
    """A checked message: its content one text, or, where images are in it, parts of type text and
    image; the arguments of its tool calls objects."""
    content = message.get("content")
    if isinstance(content, list):
        message = {**message, "content": _plain_content(where, content)}
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _parsed(_arguments(call))}}
        for call in message["tool_calls"]
    ]
    return {**message, "content": message.get("content") or "", "tool_calls": calls}


def _plain_content(where: str, parts: Sequence[Message]) -> str | list[dict[str, Any]]:
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return [
        {"type": "text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "image", "image": _image(f"{where}.content[{number}]", part)}
        for number, part in enumerate(parts)
    ]


def _image(where: str, part: Message) -> Image:
    return Image(where, str(_address(part)).partition(",")[2])


def _arguments(call: Message) -> str:
    text: str = call["function"]["arguments"]
    return text
