"""Tools and the choice among them, as chats have both. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.api import InvalidRequest, Unsupported

_OWN = ("name", "description", "parameters", "strict")
_CHOICES = ("none", "auto", "required")
Tool = Mapping[str, Any]


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools in a chat's form. Raises Unsupported for those that are no functions."""
    found = []
    for index, tool in enumerate(tools):
        kind = tool.get("type")
        if kind != "function":
            raise Unsupported(
                f"tools[{index}].type: {str(kind)[:64]!r} is a tool that OpenAI runs itself; here "
                "models call the client's own functions only (type function)"
            )
        if isinstance(tool.get("function"), dict):
            raise InvalidRequest(
                f"tools[{index}].function: a function's name and parameters stand beside its type "
                "here, not in an object of their own as in chats"
            )
        function = {key: tool[key] for key in _OWN if tool.get(key) is not None}
        found.append({"type": "function", "function": function})
    return found


def chat_choice(
    choice: str | Mapping[str, Any] | None, tools: list[dict[str, Any]]
) -> tuple[str | dict[str, Any] | None, list[dict[str, Any]]]:
    """The choice in a chat's form, and the tools that it leaves. Raises InvalidRequest,
    Unsupported."""
    if choice is None or isinstance(choice, str):
        if choice is not None and choice not in _CHOICES:
            raise InvalidRequest(f"tool_choice: it must be one of {', '.join(_CHOICES)}")
        return choice, tools
    kind = choice.get("type")
    if kind == "function":
        return {"type": "function", "function": {"name": _name(choice, "tool_choice")}}, tools
    if kind == "allowed_tools":
        return _allowed(choice, tools)
    raise Unsupported(
        f"tool_choice.type: {str(kind)[:64]!r} is not offered here; function and allowed_tools are"
    )


def _allowed(
    choice: Mapping[str, Any], tools: list[dict[str, Any]]
) -> tuple[str, list[dict[str, Any]]]:
    mode, listed = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required"):
        raise InvalidRequest("tool_choice.mode: it must be auto or required")
    if not isinstance(listed, list) or not listed:
        raise InvalidRequest("tool_choice.tools: it must be a list of tools, each with its name")
    names = [_name(each, f"tool_choice.tools[{index}]") for index, each in enumerate(listed)]
    known = {tool["function"].get("name") for tool in tools if _is_named(tool)}
    for index, name in enumerate(names):
        if name not in known:
            raise InvalidRequest(f"tool_choice.tools[{index}].name: no tool has it: {name[:64]!r}")
    allowed = set(names)
    return mode, [tool for tool in tools if _is_named(tool) and tool["function"]["name"] in allowed]


def _is_named(tool: Mapping[str, Any]) -> bool:
    """What else stands there, a list maybe, is told when the chat's fields are read."""
    return isinstance(tool["function"].get("name"), str)


def _name(owner: object, where: str) -> str:
    name = owner.get("name") if isinstance(owner, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest(f"{where}.name: it must be a text")
    return name
