"""Schemas that tools write: what asks for nothing passes, what cannot be kept is refused."""

import datetime as dt
import decimal
import ipaddress
import json
import pathlib
import re
import uuid
from functools import cache
from typing import Annotated, Any, Literal

import pydantic
import pytest
from scripted_llama import EOS, byte_tokenizer

from trivet.backends.api import Grammar, InvalidRequest
from trivet.backends.llm.sampling.grammar_library import GrammarLibrary

FIELDS: dict[str, tuple[Any, str]] = {
    "path": (pathlib.Path, '"a/b"'),
    "file path": (pydantic.FilePath, '"a"'),
    "bytes": (bytes, '"x"'),
    "base64": (pydantic.Base64Bytes, '"eA=="'),
    "secret": (pydantic.SecretStr, '"s"'),
    "secret bytes": (pydantic.SecretBytes, '"s"'),
    "ipv4": (ipaddress.IPv4Address, '"10.0.0.1"'),
    "ipv6": (ipaddress.IPv6Address, '"::1"'),
    "network": (ipaddress.IPv4Network, '"10.0.0.0/8"'),
    "interface": (ipaddress.IPv6Interface, '"::1/128"'),
    "any address": (pydantic.IPvAnyAddress, '"::1"'),
    "expression": (re.Pattern, '"a+"'),
    "pattern": (Annotated[str, pydantic.StringConstraints(pattern="^a+$")], '"aa"'),
    "decimal": (decimal.Decimal, "1.5"),
    "uuid": (uuid.UUID, '"123e4567-e89b-12d3-a456-426614174000"'),
    "datetime": (dt.datetime, '"2024-01-02T03:04:05Z"'),
    "date": (dt.date, '"2024-01-02"'),
    "duration": (dt.timedelta, '"P1D"'),
    "url": (pydantic.AnyUrl, '"http://a/"'),
    "map": (dict[str, int], '{"a": 1}'),
    "tuple": (tuple[int, str], '[1, "a"]'),
    "optional": (int | None, "null"),
    "literal": (Literal["a"], '"a"'),
    "json": (pydantic.Json, '"{}"'),
    "anything": (Any, "1"),
    "positive": (pydantic.PositiveInt, "3"),
    "list": (list[int], "[1, 1]"),
}


@cache
def library() -> GrammarLibrary:
    return GrammarLibrary(byte_tokenizer().to_str(), EOS, EOS + 1)


def takes(schema: Any, text: str) -> bool:
    """Whether an answer may be this."""
    constraint = library().constraint(Grammar("json_schema", json.dumps(schema)))
    for byte in text.encode():
        if not constraint.mask()[byte]:
            return False
        constraint.accept(byte)
    return bool(constraint.mask()[EOS])


@pytest.mark.parametrize("name", FIELDS)
def test_types_that_pydantic_knows_pass(name: str) -> None:
    kind, answer = FIELDS[name]
    assert takes(pydantic.TypeAdapter(kind).json_schema(), answer)


INTEGERS = {"type": "array", "items": {"type": "integer"}}
NEUTRAL: list[tuple[dict[str, Any], str]] = [
    (INTEGERS | {"uniqueItems": False}, "[1,1]"),
    (INTEGERS | {"uniqueItems": True, "maxItems": 1}, "[1]"),
    ({"type": "integer", "uniqueItems": True}, "1"),
    (INTEGERS | {"unevaluatedItems": True, "minContains": 1}, "[]"),
    ({"type": "object", "propertyNames": {}, "dependentRequired": {}}, "{}"),
    ({"type": "object", "unevaluatedProperties": {}, "dependentSchemas": {}}, "{}"),
    ({"type": "integer", "not": False, "then": {"minimum": 3}}, "1"),
    ({"type": "integer", "if": {"minimum": 3}}, "1"),
    ({"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}, "null"),
    ({"$ref": "#/$defs/p", "$defs": {"p": {"type": "string", "format": "path"}}}, '"a"'),
    ({"prefixItems": [{"type": "string", "format": "path"}], "type": "array"}, '["a"]'),
]


@pytest.mark.parametrize(("schema", "answer"), NEUTRAL)
def test_keywords_that_ask_for_nothing_pass(schema: dict[str, Any], answer: str) -> None:
    assert takes(schema, answer)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (INTEGERS | {"uniqueItems": True}, "uniqueItems"),
        (INTEGERS | {"contains": {"const": 1}}, "contains"),
        (INTEGERS | {"unevaluatedItems": False}, "unevaluatedItems"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"not": {"type": "string"}}, "not"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "if"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"properties": {"a": INTEGERS | {"uniqueItems": True}}}, "uniqueItems"),
    ],
)
def test_constraints_that_cannot_be_kept_are_refused(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        takes(schema, "")


def test_names_and_values_that_look_like_keywords_are_left_alone() -> None:
    schema = {
        "type": "object",
        "properties": {"format": {"const": {"uniqueItems": False, "format": "path"}}},
        "required": ["format"],
        "additionalProperties": False,
    }
    assert takes(schema, '{"format":{"uniqueItems":false,"format":"path"}}')
    assert not takes(schema, '{"format":{}}')


SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer"}},
    "required": ["score"],
    "additionalProperties": False,
}
NUMBERS = {"^score$": {"type": "integer"}}


@pytest.mark.parametrize(
    "schema",
    [
        SCORE | {"patternProperties": NUMBERS},
        {"items": SCORE | {"patternProperties": NUMBERS}},
        {"anyOf": [{"type": "null"}, SCORE | {"patternProperties": NUMBERS}]},
        {"allOf": [SCORE, {"patternProperties": NUMBERS}]},
        {"$defs": {"s": SCORE}, "$ref": "#/$defs/s", "patternProperties": NUMBERS},
        {**SCORE, "properties": {}, "patternProperties": NUMBERS},  # required alone names it
        SCORE | {"patternProperties": {"^(score)?$|^scor(e)$": {"type": "integer"}},
                 "properties": {"": {"type": "integer"}, "score": {"type": "integer"}}},
    ],
)  # fmt: skip
def test_pattern_that_matches_named_properties_alone_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="patternProperties"):
        takes(schema, "")


def test_patterns_that_match_other_names_pass() -> None:
    numbers = {"type": "integer"}
    wide = SCORE | {"patternProperties": {"^s": numbers}}
    assert takes(wide, '{"score":1}')
    assert takes(wide, '{"score":1,"sum":2}')
    assert takes(SCORE | {"patternProperties": {"^other$": numbers}}, '{"score":1}')
    unbound = {key: value for key, value in SCORE.items() if key != "additionalProperties"}
    assert takes(unbound | {"patternProperties": NUMBERS}, '{"score":1,"else":2}')
