"""gpt-oss' format: every message has a channel, and calls are messages to a function.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...

The prompt ends with `<|start|>assistant`. What is in the channel `analysis` is thought, what is
addressed to `functions.NAME` is a call's arguments, and all else is for the user.
"""

import re
from dataclasses import dataclass

from trivet.backends.formats.format import ToolFormat
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.reader import Reader, Tools
from trivet.backends.formats.source import Reading, Sink

_START, _CHANNEL, _MESSAGE, _CALL = "<|start|>", "<|channel|>", "<|message|>", "<|call|>"
_ENDS = ("<|end|>", _CALL, "<|return|>", _START)
_HEADS = (_START, _CHANNEL, " to=", "to=")
"""What a head may begin with, right behind the role that the prompt ends with."""
_NAMED = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_MARK = re.compile(r"<\|\w+\|>")
_MAX_HEAD = 512
_FUNCTIONS = "functions."
THOUGHT_MARKS = (f"{_CHANNEL}analysis{_MESSAGE}", "<|end|>")
"""Around what is thought."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before a message's text."""

    channel: str = "final"
    recipient: str = ""

    @classmethod
    def of(cls, text: str) -> "_Head":
        channel, recipient = _NAMED.search(text), _RECIPIENT.search(text)
        return cls(channel[1] if channel else "final", recipient[1] if recipient else "")


class HarmonyReader(Reader):
    """Reads messages; their marks are shown nowhere. Without tools, calls are text."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._has_thought = False
        self._has_shown = False

    def read(self) -> Reading[None]:
        """See Reader."""
        end = ""
        while True:
            has_head = end == _START
            for mark in _HEADS:
                has_head = has_head or (yield from self.source.sees(mark))
            # Without one it is of the message that the prompt has begun.
            head = (yield from self._head()) if has_head else _Head()
            end = yield from self._body(head)

    def _head(self) -> Reading[_Head]:
        source = self.source
        parts: list[str] = []
        while not (yield from source.has(_MESSAGE)):
            parts.append((yield from source.next()))
            if len(parts) > _MAX_HEAD:
                self.show(_MARK.sub("", "".join(parts)))
                return _Head()
        return _Head.of("".join(parts))

    def _body(self, head: _Head) -> Reading[str]:
        """Gives the mark of its end."""
        name = self._function(head)
        if name:
            self.tell(name)
            sink: Sink = self._argue
        elif head.channel == "analysis":
            sink = self._separated(self.think, is_new=self._has_thought)
            self._has_thought = True
        else:
            sink = self._separated(self.show, is_new=self._has_shown)
            self._has_shown = True
        try:
            return (yield from self.source.until(_ENDS, sink))
        finally:
            # The output may end here, too.
            if name and not self._num_arguments:
                self.argue("{}")

    def _argue(self, text: str) -> None:
        self._num_arguments = 1
        self.argue(text)

    def _function(self, head: _Head) -> str:
        """Whom a message calls; empty: nobody."""
        if not self.tools:
            return ""
        if head.recipient.startswith(_FUNCTIONS):
            return head.recipient.removeprefix(_FUNCTIONS)
        return head.recipient if head.recipient in self.tools else ""

    def _separated(self, sink: Sink, *, is_new: bool) -> Sink:
        """Messages of one kind are lines of one text."""
        if not is_new:
            return sink
        parts = iter(["\n"])
        return lambda text: sink(next(parts, "") + text)


def _force(forcing: Forcing) -> str | None:
    def one(tool: Tool) -> str:
        to = f"to={_FUNCTIONS}{tool.name}"
        spoken = forcing.text(f"{_CHANNEL}commentary {to} <|constrain|>json{_MESSAGE}")
        in_template = forcing.text(f" {to}{_CHANNEL}commentary json{_MESSAGE}")
        return f"({spoken} | {in_template}) {forcing.json(tool.schema)}"

    # The model has learnt to think first, and one call ends its turn.
    between = f"<|end|>{_START}assistant"
    thought = f"{forcing.text(THOUGHT_MARKS[0])} {forcing.free(between)}"
    calls = forcing.calls(one, f"{_CALL}{_START}assistant")
    return f"({thought})? {calls} {forcing.text(_CALL)}"


HARMONY = ToolFormat(
    "openai",
    f"{_CHANNEL}commentary to={_FUNCTIONS}f <|constrain|>json{_MESSAGE}{{}}{_CALL}",
    "gpt-oss",
    HarmonyReader,
    _force,
    ((_CHANNEL, _MESSAGE, _START),),
    ends=("<|return|>", _CALL),
    is_whole=True,
)
