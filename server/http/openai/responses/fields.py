"""The bodies of /v1/responses and /v1/responses/input_tokens."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.server.http.openai.fields import Fields, Finite, Listed
from trivet.server.http.openai.refusals import Refusals, refuse_known

MAX_METADATA = 16
_Word = Annotated[str, Field(max_length=512)]
_AN_ITEM_EACH = "a text or a list of items (objects)"
FORMS: Mapping[int | str, str] = {
    "input": _AN_ITEM_EACH,
    "tool_choice": "none, auto, required or an object with a type",
    "conversation": "a text or an object",
}
"""What those fields must be that may be one of several things."""
Item = dict[str, Any]


class TextFormat(Fields):
    """What the text must match."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: _Word | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFields(Fields):
    """`text`: the answer's."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningFields(Fields):
    """`reasoning`: what a model does before it answers."""

    effort: Annotated[str, Field(max_length=32)] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class EventOptions(Fields):
    """`stream_options`: of a stream."""

    include_obfuscation: bool | None = None


class AskedFields(Fields):
    """What makes the prompt."""

    # Kept, so that those among them which are known can be refused or handed on.
    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    input: str | Listed[Item] | None = None
    instructions: str | None = None
    previous_response_id: _Word | None = None
    conversation: str | dict[str, Any] | None = None
    tools: Listed[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningFields | None = None
    text: TextFields | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def check(self) -> None:
        """What no single field can say. Raises InvalidRequest, Unsupported."""
        extra = self.model_extra or {}
        refuse_known({**extra, "conversation": self.conversation}, _REFUSED)
        if self.reasoning is not None and "concise" in (
            self.reasoning.summary,
            self.reasoning.generate_summary,
        ):
            raise Unsupported(
                "reasoning.summary: nobody shortens thoughts here; with auto or detailed it is all "
                "of them"
            )
        if not self.input and self.previous_response_id is None:
            raise InvalidRequest("input: it is missing; a text or a list of items is needed")

    @property
    def effort(self) -> str | None:
        """How much the model should think, for the chat template."""
        return None if self.reasoning is None else self.reasoning.effort

    @property
    def text_format(self) -> TextFormat:
        """What the text must match; plain text where nothing is said."""
        return (self.text and self.text.format) or TextFormat(schema=None)


class ResponseFields(AskedFields):
    """All of it."""

    background: bool | None = None
    include: Listed[_Word] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=MAX_METADATA)] | None = None
    prompt_cache_key: _Word | None = None
    safety_identifier: _Word | None = None
    service_tier: Annotated[str, Field(max_length=32)] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: EventOptions | None = None
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    user: _Word | None = None

    def check(self) -> None:
        """See AskedFields."""
        super().check()
        if self.background and self.store is False:
            raise InvalidRequest("background: it needs store=true, for its answer is fetched later")
        options = self.stream_options
        if options is not None and not self.stream:
            raise InvalidRequest("stream_options: it is allowed only with stream=true")
        if options is not None and options.include_obfuscation:
            refuse_known({"stream_options.include_obfuscation": True}, _REFUSED)
        for name in self.include or ():
            if name not in _INCLUDABLE:
                raise InvalidRequest(f"include: it must be of {', '.join(_INCLUDABLE)}")
        for key, value in (self.metadata or {}).items():
            if len(key) > 64 or len(value) > 512:
                raise InvalidRequest(
                    f"metadata: keys have at most 64 characters and values at most 512; "
                    f"{key[:64]!r} has {len(key)} and {len(value)}"
                )

    @property
    def is_kept(self) -> bool:
        """Whether the answer may be asked for later."""
        return self.store is not False

    @property
    def tells_logprobs(self) -> bool:
        """Whether the text comes with its tokens' log probabilities."""
        return bool(self.top_logprobs) or _LOGPROBS in (self.include or ())

    @property
    def summarises(self) -> bool:
        """Whether thoughts are told as a summary. It is all of them: nobody shortens them here."""
        asked = self.reasoning
        return asked is not None and (asked.summary or asked.generate_summary) is not None


_LOGPROBS = "message.output_text.logprobs"
_INCLUDABLE = (
    _LOGPROBS,
    # Thoughts and images are told in plain; of built-in tools there is nothing to tell.
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
_INSTEAD_OF_TOKENS = (None, "; use max_output_tokens")
_REFUSED: Refusals = {
    "conversation": (None, ", for conversations are not kept; use previous_response_id"),
    "prompt": (None, ", for prompts are not kept; write it in instructions and input"),
    "moderation": (None, ""),
    "context_management": ([], ""),
    "background_options": ({}, ""),
    "stream_options.include_obfuscation": (False, ""),
    # Chats' names
    "messages": (None, "; use input"),
    "max_tokens": _INSTEAD_OF_TOKENS,
    "max_completion_tokens": _INSTEAD_OF_TOKENS,
    "response_format": (None, "; use text.format"),
    "reasoning_effort": (None, "; use reasoning.effort"),
    "logprobs": (False, f'; use include with "{_LOGPROBS}"'),
    "n": (1, ", for a response has one output"),
    "echo": (False, ""),
    "prompt_logprobs": (None, ""),
    "logprob_token_ids": ([], ""),
}
