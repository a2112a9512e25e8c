"""Calls as a name, a mark and JSON: DeepSeek, Kimi and Mistral."""

import re
from dataclasses import dataclass
from functools import partial

from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.json_text import call_object, value
from trivet.backends.formats.marked_json import Style, force, listed, more
from trivet.backends.formats.reader import Reader, Tools
from trivet.backends.formats.source import Malformed, Reading

_MAX_NAME = 256
_NAME = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands around the parts of calls."""

    opening: str
    """Before all calls."""
    before_name: str
    before_arguments: str
    """All of it that models keep to; JSON begins at the next brace."""
    behind: str
    closing: str
    """Behind all calls."""
    written: str = ""
    """Between name and arguments, where that is more than `before_arguments`."""
    behind_written: str = ""
    """The same of what is behind the arguments."""
    between: str = ""
    """Calls, as they are written."""
    kind: str = ""
    """Written before the name, and a mark behind it."""
    has_ids: bool = False
    """Whether names are `functions.NAME:NUMBER`, which is the call's id too."""


class NamedJson(Reader):
    """Reads such calls."""

    def __init__(self, marks: Marks, tools: Tools) -> None:
        super().__init__(tools)
        self._marks = marks

    def read(self) -> Reading[None]:
        """See Reader."""
        yield from self.behind_each(self._marks.opening, self._calls)

    def _calls(self) -> Reading[None]:
        source, marks = self.source, self._marks
        while True:
            yield from source.spaces()
            if (yield from source.has(marks.closing)):
                self.settle()
                return
            yield from source.expect(marks.before_name)
            yield from self._call()
            self.settle()

    def _call(self) -> Reading[None]:
        source, marks = self.source, self._marks
        if marks.kind:
            yield from source.expect(marks.kind)
        head = yield from until_mark(self, marks.before_arguments)
        if marks.written:
            yield from skip_to_brace(self)
        name, own_id = _split(head.strip()) if marks.has_ids else (head.strip(), "")
        if not _NAME.fullmatch(name):
            raise Malformed("a name")
        yield from source.spaces()
        if (yield from source.peek()) == "{":
            self.tell(name, own_id)
            yield from value(source, self.argue)
            self.settle()
            yield from source.spaces()
            if (yield from source.has("```")):
                yield from source.spaces()
            yield from source.expect(marks.behind)
        else:
            # No arguments at all, or what is none.
            yield from source.expect(marks.behind)
            self.tell(name, own_id)
            self.argue("{}")


def until_mark(reader: Reader, mark: str) -> Reading[str]:
    """A short text up to a mark, which is taken, too. Raises Malformed for a long one."""
    source = reader.source
    parts: list[str] = []
    for _ in range(_MAX_NAME):
        if (yield from source.has(mark)):
            return "".join(parts)
        parts.append((yield from source.next()))
    source.leave("".join(parts))
    raise Malformed("a name")


def skip_to_brace(reader: Reader) -> Reading[None]:
    """What models write between name and JSON in several ways: a fence, its language."""
    source = reader.source
    while (yield from source.peek()) in "`json \r\n":
        yield from source.next()


def _split(head: str) -> tuple[str, str]:
    """`functions.f:0` to the name and the id."""
    name = head.removeprefix("functions.").rpartition(":")[0] or head.removeprefix("functions.")
    return name, head


class MistralCalls(Reader):
    """Reads Mistral's calls of all times: lists of objects; names and objects, with ids or not."""

    def read(self) -> Reading[None]:
        """See Reader."""
        while True:
            yield from self.source.until((_MISTRAL,), self.show)
            yield from self.attempt(_MISTRAL, self._calls())

    def _calls(self) -> Reading[None]:
        source = self.source
        yield from source.spaces()
        if (yield from source.has("[")):
            yield from listed(self)
        elif (yield from source.peek()) == "{":
            yield from call_object(self)
            yield from more(self)
        else:
            yield from self._named()

    def _named(self) -> Reading[None]:
        source = self.source
        parts: list[str] = []
        while (yield from source.peek()) not in "[{":
            parts.append((yield from source.next()))
            if len(parts) > _MAX_NAME:
                raise Malformed("a name")
        name = "".join(parts).strip()
        if (yield from source.has("[CALL_ID]")):
            yield from until_mark(self, "[ARGS]")
        elif (yield from source.has("[ARGS]")):
            yield from source.spaces()
        if not name or (yield from source.peek()) != "{":
            raise Malformed("a call")
        self.tell(name)
        yield from value(source, self.argue)
        self.settle()


def _force_mistral(forcing: Forcing) -> str | None:
    if "[ARGS]" not in forcing.template:
        return force(Style("[TOOL_CALLS] ", is_list=True), forcing)

    def one(tool: Tool) -> str:
        return f"{forcing.text(f'[TOOL_CALLS]{tool.name}[ARGS]')} {forcing.json(tool.schema)}"

    return forcing.calls(one)


def _force(marks: Marks, forcing: Forcing) -> str | None:
    def one(tool: Tool) -> str:
        name = f"functions.{tool.name}:" if marks.has_ids else tool.name
        number = "/[0-9]{1,3}/" if marks.has_ids else ""
        between = forcing.text(marks.written or marks.before_arguments)
        begun = forcing.text(f"{marks.before_name}{marks.kind}{name}")
        behind = forcing.text(marks.behind_written + marks.behind)
        return f"{begun} {number} {between} {forcing.json(tool.schema)} {behind}"

    calls = forcing.calls(one, marks.between)
    return calls and f"{forcing.text(marks.opening)} {calls} {forcing.text(marks.closing)}"


_MISTRAL = "[TOOL_CALLS]"
_V3 = Marks(
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "\n",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    written="\n```json\n",
    behind_written="\n```",
    between="\n",
    kind="function<｜tool▁sep｜>",
)
_V31 = Marks(_V3.opening, _V3.before_name, "<｜tool▁sep｜>", _V3.behind, _V3.closing)
_KIMI = Marks(
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",
    has_ids=True,
)
DEEPSEEK_V3 = ToolFormat(
    "deepseek_v3",
    f"{_V3.opening}{_V3.before_name}{_V3.kind}f{_V3.written}{{}}\n```{_V3.behind}{_V3.closing}",
    "DeepSeek V3 and R1",
    partial(NamedJson, _V3),
    partial(_force, _V3),
    ((_V3.before_name, "```json"),),
)
DEEPSEEK_V31 = ToolFormat(
    "deepseek_v31",
    f"{_V31.opening}{_V31.before_name}f{_V31.before_arguments}{{}}{_V31.behind}{_V31.closing}",
    "DeepSeek V3.1",
    partial(NamedJson, _V31),
    partial(_force, _V31),
    ((_V31.before_name,),),
)
KIMI_K2 = ToolFormat(
    "kimi_k2",
    f"{_KIMI.opening}{_KIMI.before_name}functions.f:0{_KIMI.before_arguments}{{}}{_KIMI.behind}"
    f"{_KIMI.closing}",
    "Kimi K2",
    partial(NamedJson, _KIMI),
    partial(_force, _KIMI),
    ((_KIMI.before_name,), ("<|im_system|>tool_declare",)),
)
MISTRAL = ToolFormat(
    "mistral",
    '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]`, later `[TOOL_CALLS]f[ARGS]{"a": 1}',
    "Mistral, Ministral, Magistral, Devstral",
    MistralCalls,
    _force_mistral,
    ((_MISTRAL,),),
    short_ids=True,
)
