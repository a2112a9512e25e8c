"""What requests say that an output must match, as the engine is told it."""

import json
from typing import Any

import pytest

from trivet.backends.api import Grammar, InvalidRequest, ServingError
from trivet.server.http.openai.grammars import ResponseFormat, StructuredOutputs, grammar_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
TAG = {"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}


def structured(**given: Any) -> Grammar:
    found = grammar_of(None, StructuredOutputs.model_validate(given))
    assert found is not None
    return found


def test_schemas_are_told_as_they_were_written() -> None:
    assert structured(json='{"type":  "object"}').value == '{"type":  "object"}'
    assert json.loads(structured(json=SCHEMA).value) == SCHEMA


def test_spaces_are_as_wished() -> None:
    told = json.loads(structured(json=SCHEMA, whitespace_pattern="[ ]?").value)
    assert told == {**SCHEMA, "x-guidance": {"whitespace_pattern": "[ ]?"}}
    told = json.loads(structured(json_object=True, disable_any_whitespace=True).value)
    assert told == {"type": "object", "x-guidance": {"whitespace_flexible": False}}


def test_objects_are_closed_on_demand_where_they_do_not_say() -> None:
    open_one = {"type": "object", "properties": {"b": {}}, "additionalProperties": True}
    schema = {**SCHEMA, "$defs": {"open": open_one}}
    told = json.loads(structured(json=json.dumps(schema), disable_additional_properties=True).value)
    inner = {"type": "object", "properties": {}, "additionalProperties": False}
    assert told["properties"] == {"a": inner}
    assert told["additionalProperties"] is False
    assert told["$defs"]["open"] == open_one


def test_tags_are_told_with_their_triggers_in_both_forms() -> None:
    tags = {"structures": [TAG], "triggers": ["<g", "<f"]}
    form = ResponseFormat.model_validate({"type": "structural_tag", **tags})
    for found in (grammar_of(form, None), structured(structural_tag=json.dumps(tags))):
        assert found is not None
        assert found.kind == "structural_tag"
        assert json.loads(found.value) == [["<f", "<f>", {"type": "integer"}, "</f>"]]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"jsonn": {}}, "structured_outputs.jsonn"),
        ({"json": "[", "disable_any_whitespace": True}, "structured_outputs.json"),
        ({"structural_tag": "["}, "structured_outputs.structural_tag"),
        ({"structural_tag": "{}"}, "structured_outputs.structural_tag"),
        (
            {"structural_tag": json.dumps({"structures": [TAG], "triggers": ["<g"]})},
            "structured_outputs.structures[0].begin",
        ),
        ({"regex": "a", "choice": ["a"]}, "structured_outputs"),
        ({}, "structured_outputs"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ServingError) as caught:
        structured(**given)
    assert caught.value.message.startswith(f"{named}: ")


def test_tags_need_their_parts() -> None:
    form = ResponseFormat.model_validate({"type": "structural_tag"})
    with pytest.raises(InvalidRequest, match="response_format: a structural tag needs"):
        grammar_of(form, None)
