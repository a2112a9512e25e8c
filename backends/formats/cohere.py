"""Cohere's calls: lists of objects between marks, beside thoughts and answers that have marks of
their own (Command R7B, Command A), and in a fence behind `Action:` (Command R and R+)."""

from dataclasses import dataclass
from functools import partial

from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.json_text import call_object
from trivet.backends.formats.marked_json import listed
from trivet.backends.formats.reader import Reader
from trivet.backends.formats.source import Reading
from trivet.backends.formats.thoughts import COHERE as THOUGHTS

_ACTION, _ACTION_END = "<|START_ACTION|>", "<|END_ACTION|>"
_AROUND_TEXT = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
_FENCE = "Action:"


class CohereOutput(Reader):
    """Reads a whole output: thoughts, an answer, calls."""

    def read(self) -> Reading[None]:
        """See Reader."""
        marks = (_ACTION, THOUGHTS.opening, THOUGHTS.closing, *_AROUND_TEXT)
        while True:
            mark = yield from self.source.until(marks, self.show)
            if mark == _ACTION:
                yield from self.attempt(mark, self._calls())
            elif mark == THOUGHTS.opening:
                yield from self.source.until((THOUGHTS.closing,), self.think)

    def _calls(self) -> Reading[None]:
        yield from self.source.spaces()
        yield from self.source.expect("[")
        yield from listed(self, partial(call_object, self, name_key="tool_name"))
        yield from self.source.spaces()
        if (yield from self.source.has(_ACTION_END)):
            self.settle()


class FencedActions(Reader):
    """Reads calls in a fence."""

    def read(self) -> Reading[None]:
        """See Reader."""
        yield from self.behind_each(_FENCE, self._calls)

    def _calls(self) -> Reading[None]:
        source = self.source
        yield from source.spaces()
        yield from source.expect("```json")
        yield from source.spaces()
        yield from source.expect("[")
        # `directly_answer` is no function of the client's.
        known = self.tools or None
        yield from listed(self, partial(call_object, self, name_key="tool_name", known=known))
        yield from source.spaces()
        if (yield from source.has("```")):
            self.settle()


@dataclass(frozen=True, slots=True)
class _Written:
    """Calls as the templates write them."""

    opening: str
    before: tuple[str, ...]
    """The name; a number stands between the parts."""
    behind_name: str
    behind: str
    closing: str


_BETWEEN = ",\n    "
_NUMBER = "/[0-9]{1,3}/"
_MARKED = _Written(
    f"{_ACTION}[\n    ",
    ('{"tool_call_id": "', '", "tool_name": "'),
    '", "parameters": ',
    "}",
    f"\n]{_ACTION_END}",
)
_FENCED = _Written(
    f"{_FENCE} ```json\n[\n    ",
    ('{\n        "tool_name": "',),
    '",\n        "parameters": ',
    "\n    }",
    "\n]\n```",
)


def _force(written: _Written, forcing: Forcing) -> str | None:
    def one(tool: Tool) -> str:
        *numbered, last = written.before
        counted = [f"{forcing.text(part)} {_NUMBER}" for part in numbered]
        named = forcing.text(f"{last}{tool.name}{written.behind_name}")
        return " ".join([*counted, named, forcing.json(tool.schema), forcing.text(written.behind)])

    calls = forcing.calls(one, _BETWEEN)
    return calls and f"{forcing.text(written.opening)} {calls} {forcing.text(written.closing)}"


COHERE = ToolFormat(
    "cohere_command3",
    f'{_ACTION}[{{"tool_call_id": "0", "tool_name": "f", "parameters": {{"a": 1}}}}]{_ACTION_END}',
    "Command R7B, Command A",
    CohereOutput,
    partial(_force, _MARKED),
    ((_ACTION,),),
    aliases=("cohere_command4",),
    is_whole=True,
)
COMMAND_R = ToolFormat(
    "command_r",
    'Action: ```json\n[{"tool_name": "f", "parameters": {"a": 1}}]\n```',
    "Command R and R+ (their template `tool_use`)",
    FencedActions,
    partial(_force, _FENCED),
    (('"tool_name": title of the tool',),),
)
