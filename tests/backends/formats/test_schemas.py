"""Schemas of arguments that are meant to hurt: they unfold without end, and are read to an end."""

from typing import Any

import pytest

from trivet.backends.formats import values
from trivet.backends.formats.grammar import Forcing, Tool
from trivet.backends.formats.registry import TOOL_FORMATS, tool_format
from trivet.backends.formats.values import ANY, kinds_of, kinds_of_argument

ITSELF = {"$ref": "#/properties/x"}
IN_ITSELF = {"type": "object", "properties": {"x": {"anyOf": [ITSELF] * 10}}}
LEVELS: dict[str, Any] = {
    f"d{level}": {
        "type": "object",
        "properties": {f"p{each}": {"$ref": f"#/$defs/d{level + 1}"} for each in range(10)},
    }
    for level in range(8)
}
IN_LEVELS = {**LEVELS["d0"], "$defs": {**LEVELS, "d8": {"type": "integer"}}}
CHOICES = {
    f"c{level}": {"anyOf": [{"$ref": f"#/$defs/c{level + 1}"}, {"type": "string"}] * 10}
    for level in range(8)
}
IN_CHOICES = {
    "type": "object", "properties": {"x": {"$ref": "#/$defs/c0"}}, "$defs": CHOICES,
}  # fmt: skip


@pytest.mark.more_of("O22")
@pytest.mark.parametrize(
    "schema", [IN_ITSELF, IN_LEVELS, IN_CHOICES], ids=["self", "levels", "any"]
)
@pytest.mark.parametrize("name", [each.name for each in TOOL_FORMATS])
def test_schemas_that_unfold_without_end_are_read_to_an_end(
    name: str, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[Any] = []
    own_kinds = values._own_kinds

    def counted(each: Any) -> values.Kinds:
        visits.append(each)
        return own_kinds(each)

    monkeypatch.setattr(values, "_own_kinds", counted)
    form = tool_format(name)
    assert form is not None
    form.force(Forcing([Tool("f", schema)], is_single=True))
    kinds_of_argument(schema, "x")
    assert len(visits) < 5_000


def test_types_are_those_of_all_that_a_schema_refers_to() -> None:
    root = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}}
    assert kinds_of({"oneOf": [{"$ref": "#/$defs/a"}, {"enum": [1, "b"]}]}, root) == {
        "null", "integer", "string"
    }  # fmt: skip
    choices: list[Any] = [{"anyOf": [{}, {"type": "null"}]}, {"anyOf": []}, {"$ref": "#/no"}, None]
    for anything in choices:
        assert kinds_of(anything, root) == ANY
    assert kinds_of({"anyOf": [{"type": "null"}] * 1_000}, root) == ANY
