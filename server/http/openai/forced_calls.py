"""Calls that a request forces: their grammar, and what reads the output that follows it."""

from trivet.backends.api import Grammar
from trivet.backends.formats.format import ThoughtFormat, ToolFormat
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.plain_json import ListedCalls, NamedCall
from trivet.backends.formats.reader import OutputReader
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.grammars import limited
from trivet.server.http.openai.tools import NamedChoice, forced_grammar

_FIELD = "tools"


class ForcedCalls:
    """In the model's own format, or as JSON where that is unknown or cannot hold to a schema."""

    def __init__(self, fields: ChatFields, own: ToolFormat | None, template: str) -> None:
        """`own`: the model's format, and the chat template that may say more of it."""
        self._fields = fields
        self._own = own
        choice = fields.tool_choice
        self._name = choice.function.name if isinstance(choice, NamedChoice) else ""
        tools = [
            Tool(tool.function.name, tool.function.schema_of_arguments)
            for tool in fields.tools or ()
            if not self._name or tool.function.name == self._name
        ]
        is_single = bool(self._name) or not fields.calls_in_parallel
        self._forcing = Forcing(tools, is_single, template)
        self._start = own.force(self._forcing) if own is not None else None

    @property
    def is_plain(self) -> bool:
        """Whether the output is JSON and nothing else."""
        return self._start is None

    def grammar(self, thoughts: ThoughtFormat | None) -> Grammar:
        """Of the output, which may begin with the end of such thoughts. Raises InvalidRequest."""
        if self._start is None:
            plain = forced_grammar(
                self._fields.tools or (),
                self._fields.tool_choice,
                parallel=self._fields.calls_in_parallel,
            )
            assert plain is not None, "a call is forced"
            return plain
        start = self._start
        if thoughts is not None:
            start = f'{self._forcing.free(thoughts.closing)} ("\\n" | "\\n\\n")? {start}'
        return limited(Grammar("calls", self._forcing.value(start), _FIELD))

    def reader(self) -> OutputReader:
        """Takes the output apart."""
        if self._own is None or self._start is None:
            return NamedCall(self._name) if self._name else ListedCalls({})
        return self._own.reader({tool.name: tool.schema for tool in self._forcing.tools})
