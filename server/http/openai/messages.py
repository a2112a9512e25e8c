"""Conversations: what may be in them, and the form that chat templates expect."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trivet.backends.api import InvalidRequest

Message = Mapping[str, Any]
_ROLES = {"system", "developer", "user", "assistant", "tool"}


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InvalidRequest for what is no conversation of texts."""
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
        if not isinstance(part, dict) or part.get("type") != "text":
            raise InvalidRequest(f"{where}.content[{number}].type: only text parts are offered")
        if not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{where}.content[{number}].text: it must be a text")
    _check_calls(f"{where}.tool_calls", message.get("tool_calls"))


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


def plain_message(message: Message) -> Message:
    """A checked message as templates of text models expect it: its content one text, the arguments
    of its tool calls objects."""
    content = message.get("content")
    if isinstance(content, list):
        message = {**message, "content": "\n".join(part["text"] for part in content)}
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _parsed(_arguments(call))}}
        for call in message["tool_calls"]
    ]
    return {**message, "content": message.get("content") or "", "tool_calls": calls}


def _arguments(call: Message) -> str:
    text: str = call["function"]["arguments"]
    return text
