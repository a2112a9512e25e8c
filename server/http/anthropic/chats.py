"""A request of this API as the chat that it is."""

from typing import Any, ClassVar

from trivet.server.http.anthropic.fields import (
    MAX_STOP_SEQUENCES,
    CountFields,
    MessagesFields,
    ToolChoiceFields,
    ToolDefinition,
)
from trivet.server.http.anthropic.turns import is_begun, messages_of
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.grammars import JsonSchema, ResponseFormat
from trivet.server.http.openai.tools import (
    FunctionFields,
    NamedChoice,
    NamedFunction,
    ToolChoice,
    ToolFields,
)


class MessagesChat(ChatFields):
    """A chat with the limits of this API."""

    max_stops: ClassVar[int] = MAX_STOP_SEQUENCES
    fits_limit: ClassVar[bool] = True


def chat_of(fields: CountFields) -> ChatFields:
    """The chat. Raises InvalidRequest, Unsupported, with this API's names of fields."""
    messages = messages_of(fields.system, fields.messages)
    goes_on = is_begun(messages)
    chat = MessagesChat(
        model=fields.model,
        messages=messages,
        tools=[_tool(each) for each in fields.tools] if fields.tools else None,
        tool_choice=_choice(fields.tool_choice),
        parallel_tool_calls=not (
            fields.tool_choice is not None and fields.tool_choice.disable_parallel_tool_use
        ),
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
        response_format=_format(fields),
        reasoning_effort=None if fields.output_config is None else fields.output_config.effort,
        include_reasoning=fields.thinking is None or fields.thinking.type != "disabled",
        chat_template_kwargs=_template_arguments(fields),
        **_sampling(fields),
    )
    chat.check()
    return chat


def _sampling(fields: CountFields) -> dict[str, Any]:
    if not isinstance(fields, MessagesFields):
        return {}
    return {
        "max_tokens": fields.max_tokens,
        "stop": fields.stop_sequences,
        "stream": fields.stream,
        "temperature": fields.temperature,
        "top_p": fields.top_p,
        "top_k": fields.top_k,
    }


def _tool(definition: ToolDefinition) -> ToolFields:
    """Made without being checked: names of this API may be longer."""
    told: dict[str, Any] = {"name": definition.name, "parameters": definition.input_schema}
    if definition.description is not None:
        told["description"] = definition.description
    function = FunctionFields.model_construct(**told)
    return ToolFields.model_construct(type="function", function=function)


def _choice(given: ToolChoiceFields | None) -> ToolChoice | None:
    if given is None or given.type == "auto":
        return None
    if given.type == "tool":
        return NamedChoice(function=NamedFunction(name=given.name or ""))
    return "required" if given.type == "any" else "none"


def _format(fields: CountFields) -> ResponseFormat | None:
    if fields.format is None:
        return None
    schema = JsonSchema.model_validate({"schema": fields.format.schema_})
    return ResponseFormat(type="json_schema", json_schema=schema)


def _template_arguments(fields: CountFields) -> dict[str, Any] | None:
    """With the name under which templates are told whether to think."""
    given = fields.chat_template_kwargs
    if fields.thinking is None or fields.thinking.type == "adaptive":
        return given
    return {"enable_thinking": fields.thinking.type == "enabled", **(given or {})}
