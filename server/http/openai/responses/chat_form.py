"""A request in the form of a chat, which goes on from there as every chat does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from trivet.backends.api import InvalidRequest, ServingError
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.fields import told
from trivet.server.http.openai.responses.fields import AskedFields, ResponseFields
from trivet.server.http.openai.responses.items import Item, Transcript
from trivet.server.http.openai.responses.tools import chat_choice, chat_tools

_HANDED_ON = (
    "frequency_penalty", "presence_penalty", "repetition_penalty", "top_k", "min_p", "logit_bias",
    "min_tokens", "seed", "stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos",
    "skip_special_tokens", "allowed_token_ids", "bad_words", "structured_outputs", "priority",
    "cache_salt", "chat_template_kwargs", "thinking_token_budget", "include_reasoning",
)  # fmt: skip
"""vLLM's further fields, which mean the same as in chats."""
_NAMES = {
    "messages": "input",
    "prompt": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
}
"""What chats call fields of this API."""
_FUNCTION = ".function."
"""Chats have functions in objects of their own."""


def chat_of(asked: AskedFields, before: Sequence[Item], new: Sequence[Item]) -> ChatFields:
    """The chat that a request is: `before` are the items that it goes on from, `new` its own.
    Raises InvalidRequest, Unsupported."""
    transcript = Transcript()
    for number, item in enumerate(before):
        transcript.add(f"previous_response_id[{number}]", item)
    for number, item in enumerate(new):
        transcript.add(f"input[{number}]", item)
    messages = transcript.messages
    if asked.instructions is not None:
        messages = [{"role": "system", "content": asked.instructions}, *messages]
    if not messages:
        raise InvalidRequest("input: it holds no message")
    choice, tools = chat_choice(asked.tool_choice, chat_tools(asked.tools or ()))
    given: dict[str, Any] = {
        "model": asked.model,
        "messages": messages,
        "tools": tools or None,
        "tool_choice": choice if tools or choice not in ("none", "auto") else None,
        "parallel_tool_calls": asked.parallel_tool_calls,
        "reasoning_effort": asked.effort,
        "response_format": _format(asked),
    }
    if isinstance(asked, ResponseFields):
        given |= _sampling(asked)
    extra = asked.model_extra or {}
    given |= {name: extra[name] for name in _HANDED_ON if name in extra}
    try:
        chat = ChatFields.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(told(error).replace(_FUNCTION, ".")) from None
    chat.check()
    return chat


def _sampling(asked: ResponseFields) -> dict[str, Any]:
    return {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "max_completion_tokens": asked.max_output_tokens,
        "logprobs": asked.tells_logprobs,
        "top_logprobs": asked.top_logprobs,
    }


def _format(asked: AskedFields) -> dict[str, Any] | None:
    form = asked.text_format
    if form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": form.name, "schema": form.schema_}}


@contextmanager
def under_own_names() -> Iterator[None]:
    """Errors about fields of the chat name the fields of the request."""
    try:
        yield
    except ServingError as error:
        raise renamed(error) from None


def renamed(error: ServingError) -> ServingError:
    """An error that names its field as this API does."""
    name, colon, text = error.message.partition(":")
    name = name.replace(_FUNCTION, ".")
    head, dot, rest = name.partition(".")
    if not colon or (head not in _NAMES and not head.startswith("tools[")):
        return error
    # Of a schema the chat has one object more.
    rest = rest.removeprefix("json_schema").removeprefix(".") if head == "response_format" else rest
    own = f"{_NAMES.get(head, head)}{dot if rest else ''}{rest}"
    error.message = f"{own}:{text}"
    error.args = (error.message,)
    return error
