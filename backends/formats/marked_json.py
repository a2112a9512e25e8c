"""Calls as JSON objects with name and arguments, between marks: the most common formats."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial

from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.json_text import call_object
from trivet.backends.formats.reader import Reader, Tools
from trivet.backends.formats.source import SPACE, Malformed, Reading

_STRAY = f"}}{SPACE}"
"""What may stand between a call and its closing mark: models miscount brackets."""


@dataclass(frozen=True, slots=True)
class Style:
    """How they are written."""

    opening: str
    """Before the calls."""
    closing: str = ""
    """Behind them; empty: they end by themselves."""
    arguments: str = "arguments"
    """The key that the model writes; all are read."""
    is_list: bool = False
    """Whether all calls stand in one list. Models that write objects are read in lists, too."""
    pad: str = ""
    """Written between marks and calls."""
    others: tuple[str, ...] = ()
    """Other opening marks of the same models."""


class MarkedJson(Reader):
    """Reads calls between marks, alone or in lists."""

    def __init__(self, style: Style, tools: Tools) -> None:
        super().__init__(tools)
        self._style = style

    def read(self) -> Reading[None]:
        """See Reader."""
        marks = (self._style.opening, *self._style.others)
        while True:
            mark = yield from self.source.until(marks, self.show)
            yield from self.attempt(mark, self._calls())

    def _calls(self) -> Reading[None]:
        source, closing = self.source, self._style.closing
        yield from source.spaces()
        try:
            if (yield from source.has("[")):
                yield from listed(self, partial(call_object, self, end=closing))
            else:
                yield from call_object(self, end=closing)
                yield from more(self)
        except Malformed:
            # A call that is told needs no last brackets, if no more stands before the mark.
            if source.taken or not closing or not (yield from source.sees(closing)):
                raise
        if closing:
            while (yield from source.peek()) in _STRAY:
                yield from source.next()
            if (yield from source.has(closing)):
                self.settle()


class LeadingJson(Reader):
    """Calls that make up a whole output, behind a mark that may be missing: Llama's."""

    def read(self) -> Reading[None]:
        """See Reader."""
        yield from self.attempt("", self._calls())

    def _calls(self) -> Reading[None]:
        source = self.source
        # Without a mark, any JSON could be one.
        known = self.tools or None
        yield from source.spaces()
        if (yield from source.has("<|python_")):
            known = None
            if not (yield from source.has("tag|>")):
                yield from source.expect("start|>")
            yield from source.spaces()
        elif (yield from source.has("```")):
            # Gemma puts into a fence what it is asked to write alone.
            yield from source.has("json")
            yield from source.spaces()
        yield from call_object(self, needs_arguments=True, known=known)
        yield from more(self, needs_arguments=True, known=known)
        if (yield from source.has("<|python_end|>")) or (yield from source.has("```")):
            self.settle()


def listed(reader: Reader, one: Callable[[], Reading[None]] | None = None) -> Reading[None]:
    """Calls behind the bracket of a list, and its end; `one`: how one is read."""
    one = one or partial(call_object, reader)
    source = reader.source
    while True:
        yield from source.spaces()
        if (yield from source.has("]")):
            reader.settle()
            return
        yield from one()
        yield from source.spaces()
        yield from source.has(",")


def more(
    reader: Reader, *, needs_arguments: bool = False, known: Container[str] | None = None
) -> Reading[None]:
    """Further calls behind a comma or semicolon."""
    source = reader.source
    while True:
        yield from source.spaces()
        if (yield from source.peek()) not in ",;":
            return
        yield from source.next()
        yield from source.spaces()
        yield from call_object(reader, needs_arguments=needs_arguments, known=known)


def force(style: Style, forcing: Forcing) -> str | None:
    """See ToolFormat."""
    if "functools" in style.others and "functools[" in forcing.template:
        style = Style("functools", is_list=True)
    opening, closing = style.opening + style.pad, style.closing and style.pad + style.closing
    if style.is_list:
        calls = forcing.calls(partial(_object, forcing, style.arguments), ", ")
        return f"{forcing.text(opening + '[')} {calls} {forcing.text(']' + closing)}"

    def one(tool: Tool) -> str:
        inner = _object(forcing, style.arguments, tool)
        return " ".join(
            [forcing.text(opening), inner, *([forcing.text(closing)] if closing else [])]
        )

    return forcing.calls(one, "\n")


def force_bare(forcing: Forcing) -> str | None:
    """The same for calls without any mark, separated as Llama does it."""
    return forcing.calls(partial(_object, forcing, "parameters"), "; ")


def _object(forcing: Forcing, arguments: str, tool: Tool) -> str:
    begun = forcing.text(f'{{"name": "{tool.name}", "{arguments}": ')
    return f"{begun} {forcing.json(tool.schema)} {forcing.text('}')}"


def _format(
    name: str,
    style: Style,
    used_by: str,
    *in_template: tuple[str, ...],
    aliases: tuple[str, ...] = (),
) -> ToolFormat:
    first, last = ("[", "]") if style.is_list else ("", "")
    inner = f'{first}{{"name": "f", "{style.arguments}": {{"a": 1}}}}{last}'
    behind = style.closing and style.pad + style.closing
    shown = f"{style.opening}{style.pad}{inner}{behind}"
    reader, forced = partial(MarkedJson, style), partial(force, style)
    return ToolFormat(name, shown, used_by, reader, forced, in_template, aliases)


HERMES = _format(
    "hermes",
    Style("<tool_call>", "</tool_call>", pad="\n"),
    "Qwen 2.5 and 3, Hermes, SmolLM3, Granite 4, ERNIE 4.5",
    ("<tool_call>",),
    aliases=("granite4", "ernie45"),
)
GRANITE = _format(
    "granite",
    Style("<|tool_call|>", is_list=True, others=("<tool_call>",)),
    "Granite 3",
    ("<|start_of_role|>", "<|tool_call|>"),
)
GRANITE_CODE = _format(
    "granite-20b-fc",
    Style("<function_call>", pad=" "),
    "Granite 20B function calling",
    ("<function_call>",),
)
_PHI4 = Style("<|tool_call|>", "<|/tool_call|>", is_list=True, others=("functools",))
PHI4_MINI = _format(
    "phi4_mini_json", _PHI4, "Phi-4-mini", ("<|tool|>", "<|/tool|>"), ("functools[",)
)
JAMBA = _format(
    "jamba",
    Style("<tool_calls>", "</tool_calls>", is_list=True, pad="\n"),
    "Jamba, Hunyuan",
    ("<tool_calls>",),
    aliases=("hunyuan_a13b",),
)
LONGCAT = _format(
    "longcat",
    Style("<longcat_tool_call>", "</longcat_tool_call>", pad="\n"),
    "LongCat",
    ("<longcat_tool_call>",),
)
INTERNLM = _format(
    "internlm",
    Style("<|action_start|><|plugin|>", "<|action_end|>", "parameters", pad="\n"),
    "InternLM 2 and 3",
    ("<|plugin|>",),
)
LLAMA3_JSON = ToolFormat(
    "llama3_json",
    '{"name": "f", "parameters": {"a": 1}}',
    "Llama 3.1 to 3.3, Llama 4, Gemma 3 with Google's JSON prompt (in a fence, too)",
    LeadingJson,
    force_bare,
    (("<|python_tag|>",), ('"parameters": dictionary',)),
    aliases=("llama4_json",),
)
