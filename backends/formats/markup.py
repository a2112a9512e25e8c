"""Calls in mark-up, each argument between marks of its own: Qwen3-Coder, Seed-OSS, MiniMax, GLM.

Arguments are written as they are if they are texts, else as JSON or as Python would write them: the
schema of the function tells which.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from trivet.backends.formats.arguments import forced_members, plain_value
from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Schema, Tool
from trivet.backends.formats.named_json import until_mark
from trivet.backends.formats.reader import Reader, Tools
from trivet.backends.formats.source import Ended, Malformed, Reading
from trivet.backends.formats.values import (
    TEXT,
    Kinds,
    inside_quotes,
    kinds_of,
    kinds_of_argument,
    text_as_json,
)

_MAX_NAME = 256
_LINE = "\n"


@dataclass(frozen=True, slots=True)
class Markup:
    """The marks around all calls, a call, an argument."""

    opening: str
    closing: str
    before_name: str
    """Empty: the name stands behind the opening mark, and ends with its line."""
    behind_name: str
    call_end: str
    """Empty: the call ends with all calls."""
    before_key: str
    behind_key: str
    behind_value: str
    before_value: str = ""
    line: str = ""
    """A line break that stands around a value and is not of it."""
    is_python: bool = False
    """Whether what is no text is written as Python has it."""
    is_block: bool = False
    """Whether several calls stand between the outer marks."""
    kinds: tuple[tuple[str, bool], ...] = ()
    """What stands behind a key where that tells whether the value is a text."""


class MarkupCalls(Reader):
    """Reads such calls."""

    def __init__(self, marks: Markup, tools: Tools) -> None:
        super().__init__(tools)
        self._marks = marks

    def read(self) -> Reading[None]:
        """See Reader."""
        yield from self.behind_each(self._marks.opening, self._calls)

    def _calls(self) -> Reading[None]:
        source, marks = self.source, self._marks
        if not marks.before_name:
            yield from self._call()
            return
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
        name = yield from self._name()
        end = marks.call_end or marks.closing
        yield from source.spaces()
        # Told once something of a call follows its name.
        has_key = yield from source.has(marks.before_key)
        if not has_key:
            yield from source.expect(end)
        self.tell(name)
        while has_key:
            yield from self._argument(name)
            yield from source.spaces()
            has_key = yield from source.has(marks.before_key)
            if not has_key and not (yield from source.has(end)):
                self.argue_end()
                raise Malformed(end)
        self.argue_end()
        self.settle()

    def _name(self) -> Reading[str]:
        source, marks = self.source, self._marks
        parts: list[str] = []
        while not (yield from source.has(marks.behind_name)):
            if (yield from source.peek()) == "<":
                if marks.before_name:
                    raise Malformed("a name")
                break
            parts.append((yield from source.next()))
            if len(parts) > _MAX_NAME:
                raise Malformed("a name")
        name = "".join(parts).strip()
        if not name or any(char.isspace() or char in '{"' for char in name):
            raise Malformed("a name")
        return name

    def _argument(self, function: str) -> Reading[None]:
        source, marks = self.source, self._marks
        key = yield from until_mark(self, marks.behind_key)
        kinds: Kinds = kinds_of_argument(self.tools.get(function), key)
        for mark, is_text in marks.kinds:
            if (yield from source.has(mark)):
                kinds = TEXT if is_text else kinds - TEXT
        if marks.before_value:
            yield from source.spaces()
            yield from source.expect(marks.before_value)
        if marks.line:
            yield from source.has(marks.line)
        self.argue_name(key)
        ends = tuple(dict.fromkeys((marks.line + marks.behind_value, marks.behind_value)))
        if kinds == TEXT:
            self.argue('"')
            yield from source.until(ends, lambda text: self.argue(inside_quotes(text)))
            self.argue('"')
            return
        parts: list[str] = []
        try:
            yield from source.until(ends, parts.append)
        except Ended:
            # Cut off: what there is, is told.
            if parts:
                self.argue(text_as_json("".join(parts), kinds))
            raise
        self.argue(text_as_json("".join(parts), kinds))


def _force(marks: Markup, forcing: Forcing) -> str | None:
    calls = forcing.calls(partial(_forced_call, marks, forcing), "" if marks.is_block else "\n")
    if calls is None or not marks.is_block:
        return calls
    return f"{forcing.text(marks.opening + _LINE)} {calls} {forcing.text(marks.closing)}"


def _forced_call(marks: Markup, forcing: Forcing, tool: Tool) -> str | None:
    members = forced_members(forcing, tool.schema, partial(_forced_member, marks, forcing), "")
    if members is None:
        return None
    begun = f"{marks.before_name}{tool.name}{marks.behind_name}".rstrip(_LINE) + _LINE
    end = f"{marks.call_end}{_LINE}" if marks.call_end else ""
    if not marks.is_block:
        begun = f"{marks.opening}{_LINE if marks.before_name else ''}{begun}"
        end += marks.closing
    return f"{forcing.text(begun)} {members} {forcing.text(end)}"


def _forced_member(
    marks: Markup, forcing: Forcing, name: str, schema: Schema, root: Schema
) -> str | None:
    if not forcing.may_visit():
        return None
    kind = ""
    if marks.kinds:
        is_text = kinds_of(schema, root) == TEXT
        kind = next(mark for mark, of_text in marks.kinds if of_text is is_text)
    before = f"{_LINE}{marks.before_value}" if marks.before_value else ""
    begun = f"{marks.before_key}{name}{marks.behind_key}{kind}{before}{marks.line}"
    closing = f"{marks.line}{marks.behind_value}{_LINE}"
    value = plain_value(forcing, schema, root, closing, as_python=marks.is_python)
    return value and f"{forcing.text(begun)} {value}"


def _format(name: str, marks: Markup, used_by: str, **more: Any) -> ToolFormat:
    separator = f"{_LINE if marks.before_value else ''}{marks.before_value}{marks.line}"
    kind = marks.kinds[0][0] if marks.kinds else ""
    value = f"{marks.before_key}a{marks.behind_key}{kind}{separator}x{marks.line}"
    call = f"{marks.before_name}f{marks.behind_name}{value}{marks.behind_value}{marks.call_end}"
    shown = f"{marks.opening}{call}{marks.closing}"
    return ToolFormat(
        name, shown, used_by, partial(MarkupCalls, marks), partial(_force, marks), **more
    )


QWEN3_CODER = _format(
    "qwen3_coder",
    Markup(
        "<tool_call>", "</tool_call>", "<function=", ">", "</function>",
        "<parameter=", ">", "</parameter>", line=_LINE, is_python=True,
    ),
    "Qwen3-Coder, Qwen 3.5, Nemotron 3, Step 3.5",
    in_template=(("<tool_call>", "<function="),),
    aliases=("qwen3_xml", "step3p5", "mimo"),
)  # fmt: skip
SEED_OSS = _format(
    "seed_oss",
    Markup(
        "<seed:tool_call>", "</seed:tool_call>", "<function=", ">", "</function>",
        "<parameter=", ">", "</parameter>", is_python=True,
    ),
    "Seed-OSS",
    in_template=(("<seed:tool_call>",),),
)  # fmt: skip
MINIMAX_M2 = _format(
    "minimax_m2",
    Markup(
        "<minimax:tool_call>", "</minimax:tool_call>", '<invoke name="', '">', "</invoke>",
        '<parameter name="', '">', "</parameter>", is_block=True,
    ),
    "MiniMax M2",
    in_template=(("<minimax:tool_call>",),),
)  # fmt: skip
DEEPSEEK_V32 = _format(
    "deepseek_v32",
    Markup(
        "<｜DSML｜function_calls>", "</｜DSML｜function_calls>", '<｜DSML｜invoke name="', '">',
        "</｜DSML｜invoke>", '<｜DSML｜parameter name="', '" ', "</｜DSML｜parameter>",
        is_block=True,
        kinds=(('string="true">', True), ('string="false">', False)),
    ),
    "DeepSeek V3.2",
    in_template=(("<｜DSML｜function_calls>",),),
)  # fmt: skip
GLM45 = _format(
    "glm45",
    Markup(
        "<tool_call>", "</tool_call>", "", _LINE, "",
        "<arg_key>", "</arg_key>", "</arg_value>", "<arg_value>",
    ),
    "GLM 4.5 to 4.7",
    in_template=(("<arg_key>",),),
    aliases=("glm47",),
)  # fmt: skip
