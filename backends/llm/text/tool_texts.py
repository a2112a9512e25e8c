"""Tools, calls and results as texts in Hermes' form, for chat templates that know none. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api import Messages

_INTRODUCTION = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class Arguments(dict[str, Any]):
    """A call's arguments for templates of all kinds: to some they are an object, others put them
    between texts as if they were JSON."""

    def __str__(self) -> str:
        return _json(self)

    def __add__(self, text: str) -> str:
        return f"{self}{text}"

    def __radd__(self, text: str) -> str:
        return f"{text}{self}"


def with_object_arguments(messages: Messages) -> Messages:
    """The conversation with such arguments."""
    return [
        {**message, "tool_calls": list(map(_with_arguments, message["tool_calls"]))}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _with_arguments(call: Any) -> Any:
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    function = call["function"]
    if not isinstance(function.get("arguments"), Mapping):
        return call
    return {**call, "function": {**function, "arguments": Arguments(function["arguments"])}}


def with_written_tools(messages: Messages, tools: Sequence[Mapping[str, Any]]) -> Messages:
    """The conversation without anything but role and content in what concerns tools."""
    written: list[Mapping[str, Any]] = []
    for message in messages:
        if message.get("role") == "tool":
            _add_result(written, message)
        elif message.get("tool_calls"):
            written.append({"role": message["role"], "content": _calls(message)})
        else:
            written.append(message)
    return _introduced(written, tools) if tools else written


def _introduced(
    messages: list[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    text = _INTRODUCTION.format(tools="\n".join(_json(tool) for tool in tools))
    if messages and messages[0].get("role") == "system":
        first, *rest = messages
        return [{**first, "content": f"{first.get('content') or ''}\n\n{text}"}, *rest]
    return [{"role": "system", "content": text}, *messages]


def _calls(message: Mapping[str, Any]) -> str:
    texts = [message["content"]] if message.get("content") else []
    for call in message["tool_calls"]:
        function = {key: call["function"].get(key) for key in ("name", "arguments")}
        texts.append(f"<tool_call>\n{_json(function)}\n</tool_call>")
    return "\n".join(texts)


def _add_result(written: list[Mapping[str, Any]], message: Mapping[str, Any]) -> None:
    """Results that follow each other are one message: templates want turns to change."""
    text = f"<tool_response>\n{message.get('content')}\n</tool_response>"
    if written and written[-1].get("is_result"):
        text = f"{written.pop()['content']}\n{text}"
    written.append({"role": "user", "content": text, "is_result": True})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
