"""The items of an input, and the chat that they are. Pure."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.server.http.openai.messages import check_message

Item = Mapping[str, Any]
_ID_BYTES = 24
_PREFIXES = {
    "message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco",
}  # fmt: skip
_FIELDS = {
    "message": ("role", "content", "phase"),
    "reasoning": ("summary", "content", "encrypted_content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}  # fmt: skip
"""What is kept of an item, besides its id, type and status: what the API has, as far as it is
offered here."""
_PART_FIELDS = {
    "input_image": ("image_url", "detail"),
    "output_text": ("text", "annotations", "logprobs"),
    "refusal": ("refusal",),
}
"""Of a part, besides its type; of others the text."""
_ROLES = ("assistant", "developer", "system", "user")


def new_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


def item_id(kind: str) -> str:
    """One for an item."""
    return new_id(_PREFIXES[kind])


def kind_of(item: Item) -> str:
    """Its type, which messages and references may leave out."""
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    return kind if isinstance(kind, str) else ""


class Transcript:
    """Items, one after the other, as messages of a chat: calls and thoughts are the assistant's."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._called: set[str] = set()
        self._thoughts: list[str] = []
        """Those that belong to the assistant's next message."""
        self._adding: Mapping[str, Callable[[str, Item], None]] = {
            "message": self._add_message,
            "reasoning": self._add_thoughts,
            "function_call": self._add_call,
            "function_call_output": self._add_result,
        }

    def add(self, where: str, item: Item) -> None:
        """The next one; `where` is its place in the request. Raises InvalidRequest, Unsupported."""
        kind = kind_of(item)
        add = self._adding.get(kind)
        if add is None:
            raise Unsupported(
                f"{where}.type: items of type {kind[:64]!r} are not offered here; "
                f"{', '.join(self._adding)} and item_reference are"
            )
        add(where, item)

    def _add_message(self, where: str, item: Item) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in _ROLES:
            raise InvalidRequest(f"{where}.role: it must be one of {', '.join(_ROLES)}")
        if isinstance(content, list):
            content = [_part(f"{where}.content[{i}]", part) for i, part in enumerate(content)]
        message = {"role": role, "content": content}
        check_message(where, message)
        if role == "assistant":
            message |= self._taken_thoughts()
        self.messages.append(message)

    def _add_thoughts(self, where: str, item: Item) -> None:
        # A summary of ours is all that was thought.
        name = "content" if item.get("content") else "summary"
        parts = item.get(name) or []
        if not isinstance(parts, list):
            raise InvalidRequest(f"{where}.{name}: it must be a list of parts")
        for number, part in enumerate(parts):
            place = f"{where}.{name}[{number}]"
            if not isinstance(part, dict):
                raise InvalidRequest(f"{place}: it must be an object")
            if text := _text(place, part, "text"):
                self._thoughts.append(text)

    def _add_call(self, where: str, item: Item) -> None:
        name, arguments = _text(where, item, "name"), _text(where, item, "arguments")
        call_id = _text(where, item, "call_id")
        if not _is_object(arguments):
            raise InvalidRequest(f"{where}.arguments: it must be the text of a JSON object")
        self._called.add(call_id)
        function = {"name": name, "arguments": arguments}
        call = {"id": call_id, "type": "function", "function": function}
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant" and not self._thoughts:
            last.setdefault("tool_calls", []).append(call)
            return
        thoughts = self._taken_thoughts()
        self.messages.append({"role": "assistant", "content": "", **thoughts, "tool_calls": [call]})

    def _add_result(self, where: str, item: Item) -> None:
        call_id = _text(where, item, "call_id")
        if call_id not in self._called:
            raise InvalidRequest(
                f"{where}.call_id: no function_call before it has the call_id {call_id[:64]!r}"
            )
        output = item.get("output")
        if isinstance(output, list):
            output = [_part(f"{where}.output[{i}]", part) for i, part in enumerate(output)]
        if not isinstance(output, str | list):
            raise InvalidRequest(f"{where}.output: it must be a text or a list of parts")
        message = {"role": "tool", "tool_call_id": call_id, "content": output}
        check_message(where, message)
        self.messages.append(message)

    def _taken_thoughts(self) -> dict[str, str]:
        # The name that chat templates read.
        thoughts, self._thoughts = self._thoughts, []
        return {"reasoning_content": "".join(thoughts)} if thoughts else {}


def kept(item: Item) -> dict[str, Any]:
    """An item of an input as it is told later: with an id and its content in parts, and without
    what this API does not know."""
    kind, given = kind_of(item), item.get("id")
    made: dict[str, Any] = {"id": given if isinstance(given, str) else item_id(kind), "type": kind}
    made |= {name: _known(item[name]) for name in ("status", *_FIELDS[kind]) if name in item}
    if kind == "message" and isinstance(item.get("content"), str):
        is_answer = item.get("role") == "assistant"
        part = {"type": "output_text", "annotations": []} if is_answer else {"type": "input_text"}
        made["content"] = [{**part, "text": item["content"]}]
    return made if kind == "reasoning" else {"status": "completed", **made}


def _known(value: object) -> object:
    """What is kept of a field: of parts, what the API has."""
    if not isinstance(value, list):
        return value
    return [_known_part(part) for part in value if isinstance(part, dict)]


def _known_part(part: Mapping[str, Any]) -> dict[str, Any]:
    fields = _PART_FIELDS.get(str(part.get("type")), ("text",))
    return {name: part[name] for name in ("type", *fields) if name in part}


def as_items(given: str | Sequence[Item] | None) -> list[Item]:
    """`input` in its one form."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return list(given or ())


def _part(where: str, part: object) -> dict[str, Any]:
    """A part of a message as chats have it."""
    if not isinstance(part, dict):
        raise InvalidRequest(f"{where}: it must be an object")
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text", "refusal"):
        key = "refusal" if kind == "refusal" else "text"
        return {"type": "text", "text": _text(where, part, key)}
    if kind == "input_image" and part.get("image_url"):
        detail = {"detail": part["detail"]} if "detail" in part else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_image":
        raise Unsupported(f"{where}.file_id: no files are kept here; give image_url as data")
    raise Unsupported(
        f"{where}.type: parts of type {str(kind)[:64]!r} are not offered here; input_text, "
        "output_text, refusal and input_image are"
    )


def _text(where: str, owner: Item, key: str) -> str:
    value = owner.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{key}: it must be a text")
    return value


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text or "{}"), dict)
    except orjson.JSONDecodeError:
        return False
