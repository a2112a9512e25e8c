"""What an output must match, in OpenAI's form and in vLLM's."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from trivet.backends.api import Grammar, InvalidRequest
from trivet.server.http.openai.fields import Fields, Listed

MAX_GRAMMAR_CHARACTERS = 256 * 1024


class StructuredOutputs(Fields):
    """vLLM's form of what the output must match: exactly one."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: Annotated[Listed[str], Field(min_length=1, max_length=10_000)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class JsonSchema(Fields):
    """A named schema of `response_format`."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Fields):
    """OpenAI's form of the same, and TGI's, which Hugging Face's client sends: with a `value`."""

    type: Literal["text", "json_object", "json_schema", "json", "regex"]
    json_schema: JsonSchema | None = None
    value: dict[str, Any] | str | None = None


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
    found = []
    if given.json_ is not None:
        schema = given.json_ if isinstance(given.json_, str) else json.dumps(given.json_)
        found.append(Grammar("json_schema", schema))
    if given.json_object:
        found.append(Grammar("json_object", ""))
    if given.regex is not None:
        found.append(Grammar("regex", given.regex))
    if given.choice is not None:
        found.append(Grammar("choice", json.dumps(given.choice)))
    if given.grammar is not None:
        found.append(Grammar("lark", given.grammar))
    if not found:
        raise InvalidRequest("structured_outputs: it holds no constraint")
    return found
