"""The tools of a chat request: what they must be, and the grammar of calls that are forced."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from trivet.backends.api import Grammar, InvalidRequest
from trivet.server.http.openai.fields import Fields
from trivet.server.http.openai.grammars import limited

MAX_TOOLS = 128
MAX_DEPTH = 64
_TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
# As Python's json writes it, for that is what models have been trained on.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
Schema = Mapping[str, Any]


class FunctionFields(Fields):
    """A function that the model may call."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def schema_of_arguments(self) -> Schema:
        """What its arguments must be; nothing where it does not say."""
        return self.parameters or _NO_ARGUMENTS


class ToolFields(Fields):
    """A tool of `tools`."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["function"]
    function: FunctionFields


class NamedFunction(Fields):
    """A function's name."""

    name: str


class NamedChoice(Fields):
    """`tool_choice`: this function and no other."""

    type: Literal["function"] = "function"
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


def check_tools(tools: Sequence[ToolFields], choice: ToolChoice | None) -> None:
    """Raises InvalidRequest."""
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(f"tools: {len(tools)} tools; at most {MAX_TOOLS} are allowed")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.function.name in names:
            raise InvalidRequest(
                f"tools[{index}].function.name: '{tool.function.name}' is there already"
            )
        names.add(tool.function.name)
        _check_parameters(f"tools[{index}].function.parameters", tool.function)
    if choice not in (None, "none") and not tools:
        raise InvalidRequest("tool_choice: it is allowed only with tools")
    if isinstance(choice, NamedChoice) and choice.function.name not in names:
        raise InvalidRequest(
            f"tool_choice: no tool has the name {choice.function.name[:64]!r} of its function"
        )


def _check_parameters(where: str, function: FunctionFields) -> None:
    schema = function.schema_of_arguments
    if schema.get("type", "object") != "object":
        raise InvalidRequest(f"{where}.type: it must be object, for arguments have names")
    _check_types(where, schema, 0)


def _check_types(where: str, value: object, depth: int) -> None:
    """Only what the template would otherwise show the model unseen: the types' words."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"{where}: it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        for item in value:
            _check_types(where, item, depth + 1)
    if not isinstance(value, dict):
        return
    named = value.get("type")
    if isinstance(named, str) and named not in _TYPES:
        raise InvalidRequest(f"{where}: type {named[:64]!r} is none of {', '.join(sorted(_TYPES))}")
    for key, item in value.items():
        if key == "properties" and isinstance(item, dict):
            # Here "type" would be a property's name.
            for each in item.values():
                _check_types(where, each, depth + 1)
        elif key not in ("enum", "const", "default", "examples"):
            _check_types(where, item, depth + 1)


def forced_grammar(
    tools: Sequence[ToolFields], choice: ToolChoice | None, *, parallel: bool
) -> Grammar | None:
    """What the output must be when a call is forced; None when it is not. Raises InvalidRequest.

    Of a named function: its arguments. Of any: a list of objects with `name` and `parameters`.
    """
    if isinstance(choice, NamedChoice):
        name = choice.function.name
        (chosen,) = (tool.function for tool in tools if tool.function.name == name)
        return _grammar({**chosen.schema_of_arguments, "x-guidance": _SPACING})
    if choice != "required":
        return None
    schema: dict[str, Any] = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [_call(tool.function, f"{i}") for i, tool in enumerate(tools)]},
        "$defs": {
            f"{i}": _moved(tool.function.schema_of_arguments, f"#/$defs/{i}")
            for i, tool in enumerate(tools)
        },
        "x-guidance": _SPACING,
    }
    if not parallel:
        schema["maxItems"] = 1
    return _grammar(schema)


def _call(function: FunctionFields, key: str) -> Schema:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function.name},
            "parameters": {"$ref": f"#/$defs/{key}"},
        },
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _moved(value: Any, root: str) -> Any:
    """A schema whose references to places in itself are right when it lies at `root`."""
    if isinstance(value, list):
        return [_moved(item, root) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: f"{root}{item[1:]}"
        if key == "$ref" and isinstance(item, str) and item.startswith("#")
        else _moved(item, root)
        for key, item in value.items()
    }


def _grammar(schema: Schema) -> Grammar:
    return limited(Grammar("json_schema", json.dumps(schema), "tools"))
