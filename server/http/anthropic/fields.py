"""The bodies of /v1/messages and /v1/messages/count_tokens.

Blocks of messages are checked where they are read (`turns.py`); unknown fields are ignored, as
Anthropic's clients expect of betas, and those that would change an output are refused.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.server.http.openai.fields import Fields, Finite, Listed

MIN_THINKING_TOKENS = 1024
MAX_STOP_SEQUENCES = 128
_NOT_OFFERED = ("container", "mcp_servers")
"""Fields that have the server run tools."""


class MessageFields(Fields):
    """One turn, or a part of one."""

    role: Literal["user", "assistant", "system"]
    content: str | Listed[dict[str, Any]]


class SystemBlock(Fields):
    """A part of the system prompt."""

    type: Literal["text"]
    text: str


class ToolDefinition(Fields):
    """A tool of the client's."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None
    """Its input is told as the model writes it, whole and well-formed or not."""

    def check(self, where: str) -> None:
        """Raises Unsupported for a tool that the server would have to run."""
        if self.type not in (None, "custom"):
            raise Unsupported(
                f"{where}.type: only custom tools, which the client runs, are offered here"
            )
        if self.input_schema is None:
            raise InvalidRequest(f"{where}.input_schema: it is missing")


class ToolChoiceFields(Fields):
    """Whether and which tool is to be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class ThinkingFields(Fields):
    """Whether the model is to think first, for how long, and whether the client is told what."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=MIN_THINKING_TOKENS)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class FormatFields(Fields):
    """What the text of the answer must match."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputFields(Fields):
    """How the answer is to be."""

    format: FormatFields | None = None
    effort: Annotated[str, Field(max_length=32)] | None = None


class CountFields(Fields):
    """The body of /v1/messages/count_tokens."""

    # Kept, so that those among them which are known can be refused.
    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: Annotated[Listed[MessageFields], Field(min_length=1)]
    system: str | Listed[SystemBlock] | None = None
    tools: Listed[ToolDefinition] | None = None
    tool_choice: ToolChoiceFields | None = None
    thinking: ThinkingFields | None = None
    output_config: OutputFields | None = None
    output_format: FormatFields | None = None
    """Where earlier clients have it."""
    chat_template_kwargs: dict[str, Any] | None = None

    def check(self) -> None:
        """What no single field can say. Raises InvalidRequest, Unsupported."""
        for name in _NOT_OFFERED:
            if (self.model_extra or {}).get(name):
                raise Unsupported(f"{name}: it is not offered here")
        for index, tool in enumerate(self.tools or ()):
            tool.check(f"tools[{index}]")
        choice = self.tool_choice
        if choice is not None and choice.type == "tool" and choice.name is None:
            raise InvalidRequest("tool_choice.name: type tool needs it")
        if self.output_format is not None and self._configured_format is not None:
            raise InvalidRequest("output_format: give it or output_config.format, not both")

    @property
    def format(self) -> FormatFields | None:
        """What the answer's text must match."""
        return self._configured_format or self.output_format

    @property
    def _configured_format(self) -> FormatFields | None:
        return None if self.output_config is None else self.output_config.format


class MessagesFields(CountFields):
    """The body of /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: Annotated[Listed[str], Field(max_length=MAX_STOP_SEQUENCES)] | None = None
    stream: bool | None = None
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    metadata: dict[str, Any] | None = None

    @property
    def user(self) -> str:
        """Whom the metadata names as its user; empty: nobody."""
        given = (self.metadata or {}).get("user_id")
        return given if isinstance(given, str) else ""

    def check(self) -> None:
        """See CountFields."""
        super().check()
        thinking = self.thinking
        if thinking is None or thinking.type != "enabled":
            return
        if thinking.budget_tokens is None:
            raise InvalidRequest("thinking.budget_tokens: type enabled needs it")
        if thinking.budget_tokens >= self.max_tokens:
            raise InvalidRequest(
                f"thinking.budget_tokens: {thinking.budget_tokens} must be less than max_tokens, "
                f"{self.max_tokens}"
            )
