"""Calls as Python writes them: Llama 3.2 and 4, OLMo 3, LFM2, Gemma 3."""

import re
from dataclasses import dataclass
from functools import partial

from trivet.backends.formats.arguments import (
    PYTHON_BOOLEAN,
    followed,
    forced_members,
    is_any_boolean,
    is_nameable,
    json_value,
)
from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Schema, Tool
from trivet.backends.formats.python_text import literal
from trivet.backends.formats.reader import Reader, Tools
from trivet.backends.formats.source import SPACE, Ended, Malformed, Reading, Sink

_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Style:
    """What stands around the calls."""

    opening: str = ""
    """Empty: an output is calls, or it is text."""
    closing: str = ""
    between: str = ", "
    bracket: str = "["
    """Empty: they are no list."""
    pad: str = ""
    """Written between the marks and the calls."""

    @property
    def end(self) -> str:
        """Behind the last call."""
        return "]" if self.bracket else ""


class PythonCalls(Reader):
    """Reads such calls."""

    def __init__(self, style: Style, tools: Tools) -> None:
        super().__init__(tools)
        self._style = style

    def read(self) -> Reading[None]:
        """See Reader."""
        if not self._style.opening:
            yield from self.attempt("", self._leading())
            return
        while True:
            mark = yield from self.source.until((self._style.opening,), self.show)
            yield from self.attempt(mark, self._calls())

    def _leading(self) -> Reading[None]:
        yield from self.source.spaces()
        # Llama 4 has marks for it, which it may leave out.
        if (yield from self.source.has("<|python_start|>")):
            yield from self.source.spaces()
        yield from self._calls()
        if (yield from self.source.has("<|python_end|>")):
            self.settle()

    def _calls(self) -> Reading[None]:
        source, style = self.source, self._style
        yield from source.spaces()
        yield from source.expect(style.bracket)
        while True:
            yield from source.spaces()
            if (yield from source.has(style.end or style.closing)):
                break
            yield from self._call()
            self.settle()
            yield from source.spaces()
            yield from source.has(",")
        self.settle()
        if style.bracket and style.closing:
            yield from source.spaces()
            yield from source.expect(style.closing)
            self.settle()

    def _call(self) -> Reading[None]:
        source = self.source
        name = yield from self._word("(")
        # Without marks, anything in brackets could be one.
        if not self._style.opening and self.tools and name not in self.tools:
            raise Malformed("a function")
        yield from source.spaces()
        is_told = False
        while not (yield from source.has(")")):
            key = yield from self._word("=", self.argue_cut_name if is_told else None)
            yield from source.spaces()
            if not is_told:
                self.tell(name)
                is_told = True
            self.argue_name(key)
            yield from literal(source, self.argue)
            yield from source.spaces()
            if (yield from source.peek()) != ")":
                yield from source.expect(",")
                yield from source.spaces()
        if not is_told:
            self.tell(name)
        self.argue_end()

    def _word(self, behind: str, cut_off: Sink | None = None) -> Reading[str]:
        """A name and what comes behind it; `cut_off`: gets one at which the output ends."""
        source = self.source
        name, blank = "", ""
        try:
            while True:
                yield from source.peek()
                text = source.run(_NAME)
                if not text:
                    break
                name += text
            while (yield from source.peek()) in SPACE:
                blank += yield from source.next()
        except Ended:
            if name and cut_off is not None:
                cut_off(name)
            raise
        if not name or not (yield from source.sees(behind)):
            source.leave(name + blank)
            raise Malformed("a name")
        yield from source.expect(behind)
        return name


def _force(style: Style, forcing: Forcing) -> str | None:
    calls = forcing.calls(partial(_forced_call, forcing), style.between)
    opening = style.opening + style.pad + style.bracket
    closing = style.end + style.pad + style.closing
    if calls is None or not opening:
        return calls
    return f"{forcing.text(opening)} {calls} {forcing.text(closing)}"


def _force_with_marks(forcing: Forcing) -> str | None:
    """Llama 4's, which may be left out."""
    calls = _force(Style(), forcing)
    opening, closing = forcing.text("<|python_start|>"), forcing.text("<|python_end|>")
    return calls and f"({opening})? {calls} ({closing})?"


def _forced_call(forcing: Forcing, tool: Tool) -> str | None:
    if not is_nameable(tool):
        return None
    members = forced_members(forcing, tool.schema, partial(_forced_member, forcing), ", ")
    return members and f"{forcing.text(tool.name + '(')} {members} {forcing.text(')')}"


def _forced_member(forcing: Forcing, name: str, schema: Schema, root: Schema) -> str | None:
    if not forcing.may_visit():
        return None
    begun = forcing.text(f"{name}=")
    schema = followed(schema, root)
    if is_any_boolean(schema, root):
        return f"{begun} {PYTHON_BOOLEAN}"
    value = json_value(forcing, schema, root)
    return value and f"{begun} {value}"


def _format(name: str, style: Style, used_by: str, **more: object) -> ToolFormat:
    calls = f'{style.bracket}f(a="x", b=True){style.end}'
    shown = f"{style.opening}{style.pad}{calls}{style.pad}{style.closing}"
    reader, force = partial(PythonCalls, style), partial(_force, style)
    return ToolFormat(name, shown, used_by, reader, force, **more)  # type: ignore[arg-type]


_ASKED = "[func_name1("
PYTHONIC = _format(
    "pythonic", Style(), "Llama 3.2, Gemma 3 with such a template", in_template=((_ASKED,),)
)
LLAMA4_PYTHONIC = ToolFormat(
    "llama4_pythonic",
    '<|python_start|>[f(a="x", b=True)]<|python_end|>',
    "Llama 4",
    partial(PythonCalls, Style()),
    _force_with_marks,
    ((_ASKED, "<|header_start|>"),),
)
OLMO3 = _format(
    "olmo3",
    Style("<function_calls>", "</function_calls>", "\n", ""),
    "OLMo 3",
    in_template=(("<function_calls>",),),
)
LFM2 = _format(
    "lfm2",
    Style("<|tool_call_start|>", "<|tool_call_end|>"),
    "LFM2",
    in_template=(("<|tool_call_start|>",),),
)
TOOL_CODE = _format(
    "tool_code",
    Style("```tool_code", "```", "\n", "", "\n"),
    "Gemma 3 with Google's prompt",
    in_template=(("```tool_code",),),
)
