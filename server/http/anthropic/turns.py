"""Anthropic's turns as the messages that chat templates read. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from operator import itemgetter
from typing import Any

import orjson

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.server.http.anthropic.fields import MessageFields, SystemBlock
from trivet.server.http.openai.messages import check_messages

Block = Mapping[str, Any]
Turn = dict[str, Any]
_FOR_THE_SERVER = "x-anthropic-billing-header"
"""A block that Claude Code sends first and new each time: read by a model, nothing behind it would
ever be found in the prefix cache. vLLM leaves it out, too."""
_TEXT_KINDS = ("text",)
_USER_KINDS = ("text", "image", "tool_result")
_ASSISTANT_KINDS = ("text", "thinking", "redacted_thinking", "tool_use")
_KINDS = {"user": _USER_KINDS, "assistant": _ASSISTANT_KINDS, "system": _TEXT_KINDS}


def messages_of(
    system: str | Sequence[SystemBlock] | None, turns: Sequence[MessageFields]
) -> list[Turn]:
    """The conversation. Raises InvalidRequest, Unsupported, with the place in the turns."""
    told = system if isinstance(system, str) else _told(system or ())
    messages: list[Turn] = [{"role": "system", "content": told}] if told else []
    for index, turn in enumerate(turns):
        where = f"messages[{index}]"
        for message in _READERS[turn.role](_blocks(where, turn)):
            _check(where, message)
            messages.append(message)
    joined = list(_joined(messages))
    _check_results(joined)
    return joined


def _told(system: Sequence[SystemBlock]) -> str:
    texts = (each.text for each in system)
    return "\n".join(text for text in texts if not text.startswith(_FOR_THE_SERVER))


def is_begun(messages: Sequence[Turn]) -> bool:
    """Whether the model is to go on in the last message, which is its own."""
    return bool(messages[-1]["role"] == "assistant")


def _blocks(where: str, turn: MessageFields) -> Sequence[Block]:
    if isinstance(turn.content, str):
        return [{"type": "text", "text": turn.content}]
    for number, block in enumerate(turn.content):
        _check_block(f"{where}.content[{number}]", block, _KINDS[turn.role])
    return turn.content


def _check_block(where: str, block: Block, kinds: Sequence[str]) -> None:
    kind = str(block.get("type"))
    if kind not in kinds:
        raise Unsupported(f"{where}.type: one of {', '.join(kinds)} is offered here")
    for name, cls in _NEEDED[kind].items():
        if not isinstance(block.get(name), cls):
            raise InvalidRequest(f"{where}.{name}: it must be {_CALLED[cls]}")
    if kind == "image":
        _check_source(f"{where}.source", block["source"])
    if kind == "tool_use":
        _check_input(f"{where}.input", block["input"])
    content = block.get("content")
    if kind != "tool_result" or content is None or isinstance(content, str):
        return
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise InvalidRequest(f"{where}.content: it must be a text or a list of blocks")
    for number, each in enumerate(content):
        _check_block(f"{where}.content[{number}]", each, ("text", "image"))


def _check_source(where: str, source: Block) -> None:
    if source.get("type") not in ("base64", "url"):
        raise Unsupported(f"{where}.type: one of base64, url is offered here")
    for name in ("media_type", "data") if source["type"] == "base64" else ("url",):
        if not isinstance(source.get(name), str):
            raise InvalidRequest(f"{where}.{name}: it must be a text")


def _check_input(where: str, given: Block) -> None:
    try:
        orjson.dumps(given)
    except orjson.JSONEncodeError:
        raise InvalidRequest(f"{where}: it is nested too deeply") from None


def _check(where: str, message: Turn) -> None:
    """What chats refuse, with the place where this API has it."""
    try:
        check_messages([message])
    except (InvalidRequest, Unsupported) as error:
        text = error.message.removeprefix("messages[0]")
        raise type(error)(f"{where}{text}") from None


# -- turns -----------------------------------------------------------------------------------------


def _user_messages(blocks: Sequence[Block]) -> Iterator[Turn]:
    """Results of tools first, as they answer the turn before."""
    parts: list[Block] = []
    for block in blocks:
        if block["type"] == "tool_result":
            text, images = _result(block)
            yield {"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}
            parts += images
        else:
            parts.append(_part(block))
    if parts or not blocks:
        yield {"role": "user", "content": _content(parts)}


def _result(block: Block) -> tuple[str, list[Block]]:
    content = block.get("content") or ""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    text = "\n".join(each["text"] for each in content if each["type"] == "text")
    images = [_part(each) for each in content if each["type"] == "image"]
    # Templates have no other way to say so.
    return f"Error: {text}" if block.get("is_error") else text, images


def _assistant_messages(blocks: Sequence[Block]) -> Iterator[Turn]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(each["text"] for each in blocks if each["type"] == "text"),
    }
    thoughts = "".join(each["thinking"] for each in blocks if each["type"] == "thinking")
    calls = [_call(each) for each in blocks if each["type"] == "tool_use"]
    yield (
        message
        | ({"reasoning": thoughts} if thoughts else {})
        | ({"tool_calls": calls} if calls else {})
    )


def _system_messages(blocks: Sequence[Block]) -> Iterator[Turn]:
    yield {"role": "system", "content": "\n".join(each["text"] for each in blocks)}


def _part(block: Block) -> Block:
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    source = block["source"]
    url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}


def _content(parts: list[Block]) -> str | list[Block]:
    """One text where there is nothing else: it is what every template reads."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _call(block: Block) -> Block:
    function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function}


# -- messages --------------------------------------------------------------------------------------


def _joined(messages: Sequence[Turn]) -> Iterator[Turn]:
    """Neighbours of one role are one turn: many templates want turns to alternate."""
    for role, run in groupby(messages, key=itemgetter("role")):
        if role == "tool":
            yield from run
        else:
            yield _one_turn(list(run))


def _one_turn(run: Sequence[Turn]) -> Turn:
    if len(run) == 1:
        return run[0]
    joined: Turn = {}
    for each in run:
        joined |= each
    joined["content"] = _one_content([each["content"] for each in run])
    if "tool_calls" in joined:
        joined["tool_calls"] = [call for each in run for call in each.get("tool_calls", ())]
    return joined


def _one_content(contents: Sequence[str | list[Block]]) -> str | list[Block]:
    texts = list(takewhile(lambda each: isinstance(each, str), contents))
    text = "\n".join(map(str, texts))
    if len(texts) == len(contents):
        return text
    rest = [part for content in contents[len(texts) :] for part in _parts(content)]
    return [*_parts(text), *rest] if texts else rest


def _parts(content: str | list[Block]) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _check_results(messages: Sequence[Turn]) -> None:
    """Each call has its result right behind it, and each result its call."""
    open_calls: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise InvalidRequest(
                    f"messages: the tool_result of {message['tool_call_id'][:64]!r} answers no "
                    "tool_use of the turn before, or answers it again"
                )
            open_calls.discard(message["tool_call_id"])
            continue
        _require_answered(open_calls)
        open_calls = {call["id"] for call in message.get("tool_calls", ())}
    _require_answered(open_calls)


def _require_answered(open_calls: set[str]) -> None:
    if open_calls:
        raise InvalidRequest(
            f"messages: the tool_use {min(open_calls)[:64]!r} has no tool_result in the turn "
            "behind it"
        )


_NEEDED: dict[str, dict[str, type]] = {
    "text": {"text": str},
    "image": {"source": dict},
    "tool_result": {"tool_use_id": str},
    "thinking": {"thinking": str},
    "redacted_thinking": {},
    "tool_use": {"id": str, "name": str, "input": dict},
}
_CALLED: dict[type, str] = {str: "a text", dict: "an object"}
_READERS = {
    "user": _user_messages,
    "assistant": _assistant_messages,
    "system": _system_messages,
}
