"""What an output must match, in OpenAI's form and in vLLM's."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field

from trivet.backends.api import Grammar, InvalidRequest, Unsupported
from trivet.server.http.openai.fields import Fields, Listed, parse

MAX_GRAMMAR_CHARACTERS = 256 * 1024
MAX_TAGS = 128


class StructuredOutputs(Fields):
    """vLLM's form of what the output must match: exactly one, and how JSON is written."""

    model_config = ConfigDict(extra="allow", strict=True)

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: Annotated[Listed[str], Field(min_length=1, max_length=10_000)] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None
    whitespace_pattern: Annotated[str, Field(max_length=256)] | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False


class TagFields(Fields):
    """Text between marks: what begins with `begin` goes on as `schema` says until `end`."""

    begin: Annotated[str, Field(min_length=1, max_length=256)]
    schema_: dict[str, Any] = Field(alias="schema")
    end: Annotated[str, Field(max_length=256)]


class JsonSchema(Fields):
    """A named schema of `response_format`."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Fields):
    """OpenAI's form of the same, and TGI's, which Hugging Face's client sends: with a `value`."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: Literal["text", "json_object", "json_schema", "structural_tag", "json", "regex"]
    json_schema: JsonSchema | None = None
    value: dict[str, Any] | str | None = None
    structures: Annotated[Listed[TagFields], Field(min_length=1, max_length=MAX_TAGS)] | None = None
    triggers: Annotated[Listed[str], Field(min_length=1, max_length=MAX_TAGS)] | None = None


class StructuralTag(Fields):
    """The text of `structured_outputs.structural_tag`."""

    structures: Annotated[Listed[TagFields], Field(min_length=1, max_length=MAX_TAGS)]
    triggers: Annotated[Listed[str], Field(min_length=1, max_length=MAX_TAGS)]


def grammar_of(form: ResponseFormat | None, structured: StructuredOutputs | None) -> Grammar | None:
    """What the two forms together ask for. Raises InvalidRequest."""
    found = [*_from_format(form), *_from_structured(structured)]
    if len(found) > 1:
        raise InvalidRequest(f"structured_outputs: {len(found)} constraints at once; give only one")
    return limited(found[0]) if found else None


def limited(grammar: Grammar) -> Grammar:
    """The grammar, if it is not too long. Raises InvalidRequest."""
    if len(grammar.value) > MAX_GRAMMAR_CHARACTERS:
        raise InvalidRequest(
            f"{grammar.field}: {len(grammar.value)} characters; at most {MAX_GRAMMAR_CHARACTERS} "
            "are allowed"
        )
    return grammar


def _from_format(given: ResponseFormat | None) -> list[Grammar]:
    if given is None or given.type == "text":
        return []
    if given.value is not None or given.type in ("json", "regex"):
        return [_from_value(given)]
    if given.type == "structural_tag":
        return [_tags(given.structures, given.triggers, "response_format")]
    if given.type == "json_object":
        return [Grammar("json_object", "", "response_format")]
    if given.json_schema is None or given.json_schema.schema_ is None:
        raise InvalidRequest("response_format.json_schema.schema: it is missing")
    return [Grammar("json_schema", json.dumps(given.json_schema.schema_), "response_format")]


def _from_value(given: ResponseFormat) -> Grammar:
    value, kind = given.value, "regex" if given.type == "regex" else "json_schema"
    if isinstance(value, dict) and given.type == "json_schema":
        value = value.get("schema", value)
    if value is None or (kind == "regex" and not isinstance(value, str)):
        raise InvalidRequest(f"response_format.value: type {given.type} needs it as its {kind}")
    return Grammar(kind, value if isinstance(value, str) else json.dumps(value), "response_format")


def _from_structured(given: StructuredOutputs | None) -> list[Grammar]:
    if given is None:
        return []
    for name in given.model_extra or {}:
        raise Unsupported(f"structured_outputs.{name[:64]}: it is not known here")
    found = []
    if given.json_ is not None:
        found.append(Grammar("json_schema", _as_written(given, given.json_)))
    if given.json_object:
        found.append(Grammar("json_schema", _as_written(given, {"type": "object"})))
    if given.regex is not None:
        found.append(Grammar("regex", given.regex))
    if given.choice is not None:
        found.append(Grammar("choice", json.dumps(given.choice)))
    if given.grammar is not None:
        found.append(Grammar("lark", given.grammar))
    if given.structural_tag is not None:
        try:
            tag = parse(StructuralTag, given.structural_tag.encode())
        except InvalidRequest as error:
            text = f"structured_outputs.structural_tag: {error.message}"
            raise InvalidRequest(text) from None
        found.append(_tags(tag.structures, tag.triggers, "structured_outputs"))
    if not found:
        raise InvalidRequest("structured_outputs: it holds no constraint")
    return found


def _as_written(given: StructuredOutputs, schema: dict[str, Any] | str) -> str:
    """The schema with what is said about spaces and properties; as the client wrote it where
    nothing is."""
    wishes: dict[str, Any] = {}
    if given.disable_any_whitespace:
        wishes["whitespace_flexible"] = False
    elif given.whitespace_pattern is not None:
        wishes["whitespace_pattern"] = given.whitespace_pattern
    if not wishes and not given.disable_additional_properties:
        return schema if isinstance(schema, str) else json.dumps(schema)
    if isinstance(schema, str):
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"structured_outputs.json: it is no JSON: {error}") from None
        if not isinstance(schema, dict):
            raise InvalidRequest("structured_outputs.json: it must be an object")
    written: dict[str, Any] = _closed(schema) if given.disable_additional_properties else schema
    return json.dumps({**written, **({"x-guidance": wishes} if wishes else {})})


def _closed(value: Any) -> Any:
    """A schema whose objects have the properties that it names and no others."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {key: _closed(item) for key, item in value.items()}
    if isinstance(value.get("properties"), dict) and "patternProperties" not in value:
        closed.setdefault("additionalProperties", False)
    return closed


def _tags(
    structures: Sequence[TagFields] | None, triggers: Sequence[str] | None, field: str
) -> Grammar:
    if not structures or not triggers:
        raise InvalidRequest(f"{field}: a structural tag needs structures and triggers")
    tags = []
    for number, each in enumerate(structures):
        trigger = next((t for t in triggers if t and each.begin.startswith(t)), None)
        if trigger is None:
            raise InvalidRequest(
                f"{field}.structures[{number}].begin: it begins with none of the triggers"
            )
        tags.append([trigger, each.begin, each.schema_, each.end])
    return Grammar("structural_tag", json.dumps(tags), field)
