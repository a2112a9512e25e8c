"""The body of /v1/chat/completions."""

from typing import Annotated, Any

from pydantic import Field

from trivet.backends.api import GeneratorInfo, Grammar, InvalidRequest
from trivet.server.http.openai.fields import CONTINUES_AND_ADDS, Listed
from trivet.server.http.openai.grammars import ResponseFormat
from trivet.server.http.openai.messages import check_messages
from trivet.server.http.openai.sampling_fields import LOGPROBS_OF_NOTHING, SamplingFields
from trivet.server.http.openai.tools import ToolChoice, ToolFields, check_tools

_RESERVED = {
    "messages", "tools", "add_generation_prompt", "chat_template", "tokenize", "conversation",
    "documents", "continue_final_message", "raise_exception", "strftime_now", "self",
}  # fmt: skip


class ChatFields(SamplingFields):
    """The fields."""

    messages: Annotated[Listed[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    tools: Listed[ToolFields] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    documents: Listed[dict[str, Any]] | None = None
    include_reasoning: bool = True
    reasoning_effort: Annotated[str, Field(max_length=32)] | None = None

    def check(self) -> None:
        """What no single field can say."""
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs: it is allowed only with logprobs=true")
        if self.logprob_token_ids and not self.logprobs:
            raise InvalidRequest(LOGPROBS_OF_NOTHING)
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidRequest("max_tokens: give it or max_completion_tokens, not both")
        if self.max_tokens == 0:
            raise InvalidRequest("max_tokens: it is 0; at least 1 is needed")
        if self.continue_final_message and self.add_generation_prompt:
            raise InvalidRequest(CONTINUES_AND_ADDS)
        check_tools(self.tools or (), self.tool_choice)
        check_template_arguments(self.chat_template_kwargs)
        check_messages(self.messages)

    def take_over(self, info: GeneratorInfo) -> None:
        """What the model brings where the request does not: tools, and a form of answers. Raises
        InvalidRequest for tools where the answer has a form."""
        if info.tools and not self.tools:
            self.tools = [ToolFields.model_validate(each) for each in info.tools]
        if info.response_schema is None or self.grammar() is not None:
            return
        if self.tools:
            raise InvalidRequest(
                f"tools: model '{self.model}' answers by a schema of its own, and calls no tools"
            )
        described = {"name": "answer", "schema": dict(info.response_schema)}
        self.response_format = ResponseFormat.model_validate(
            {"type": "json_schema", "json_schema": described}
        )

    @property
    def token_limit(self) -> int | None:
        """None: as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def calls_in_parallel(self) -> bool:
        """Whether an answer may have several calls."""
        return self.parallel_tool_calls is not False

    @property
    def forces_call(self) -> bool:
        """Whether the answer must be calls."""
        return self.tool_choice not in (None, "auto", "none")

    def shown_tools(self) -> list[dict[str, Any]] | None:
        """What the chat template is told of tools, as the client wrote it."""
        if not self.tools or self.tool_choice == "none":
            return None
        return [tool.model_dump(exclude_unset=True) for tool in self.tools]

    def check_logprobs(self, most: int) -> None:
        """Raises InvalidRequest for more than a model tells."""
        if self.top_logprobs is not None and self.top_logprobs > most:
            raise InvalidRequest(
                f"top_logprobs: {self.top_logprobs} are more than {most} (model parameter "
                "max_logprobs)"
            )

    def template_arguments(self) -> dict[str, Any]:
        """What else the chat template is given."""
        given = {"documents": self.documents, "reasoning_effort": self.reasoning_effort}
        told = {name: value for name, value in given.items() if value is not None}
        return told | (self.chat_template_kwargs or {})

    def grammar(self) -> Grammar | None:
        """What the output must match, but for calls that are forced. Raises InvalidRequest."""
        wished = super().grammar()
        if wished is not None and self.forces_call:
            raise InvalidRequest(
                f"{wished.field}: it is not allowed together with a tool_choice that forces a call"
            )
        return wished


def check_template_arguments(given: dict[str, Any] | None) -> None:
    """Raises InvalidRequest for what the server itself tells the template."""
    for name in given or {}:
        if name in _RESERVED:
            raise InvalidRequest(f"chat_template_kwargs: '{name}' is set by the server")
