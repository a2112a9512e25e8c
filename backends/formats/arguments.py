"""Grammars of arguments that are not written as one JSON object, from the schema of a function.

None stands for a schema that such a grammar cannot hold to: then the call is forced as JSON.
"""

from collections.abc import Callable, Mapping
from typing import Any

from trivet.backends.formats.grammar import Forcing, Schema, Tool
from trivet.backends.formats.values import TEXT, kinds_of, properties, resolved

One = Callable[[str, Schema, Schema], str | None]
"""The rule of an argument by name, schema and the schema that its references are within."""
_REMARKS = frozenset({"type", "title", "description", "default", "examples", "$comment"})
_OF_TEXTS = _REMARKS | {"enum", "const", "minLength", "maxLength", "pattern"}
_OF_OBJECTS = _REMARKS | {
    "properties", "required", "additionalProperties", "$defs", "definitions", "strict", "$schema",
}  # fmt: skip
_OR_NOTHING = frozenset({"string", "null"})
_MAX_REFERENCES = 8
_PART = 1 / 50
"""What a part of a schema costs of a request's visits, where schemas are walked whole."""
PYTHON_BOOLEAN = '("True" | "False")'


def forced_members(forcing: Forcing, schema: Schema, one: One, between: str) -> str | None:
    """The rule of all arguments of an object in their order, those that may be missing with it."""
    if not schema.keys() <= _OF_OBJECTS:
        return None
    known = properties(schema)
    needed = schema.get("required") or ()
    if any(name not in known for name in needed):
        return None
    bodies: list[tuple[str, bool]] = []
    for name, inner in known.items():
        body = one(name, inner, schema) if isinstance(inner, Mapping) else None
        if body is None:
            return None
        bodies.append((body, name in needed))
    return forcing.members(bodies, between)


def plain_value(
    forcing: Forcing, schema: Schema, root: Schema, closing: str, *, as_python: bool = False
) -> str | None:
    """The rule of a value that is written as it is where it is a text, else as JSON; and of what
    closes it. `as_python`: true and false as Python has them."""
    schema = followed(schema, root)
    kinds = kinds_of(schema, root)
    if kinds == TEXT:
        return text_value(forcing, schema, closing)
    if "string" in kinds:
        is_free = kinds <= _OR_NOTHING and _is_free(forcing, schema)
        return forcing.free(closing) if is_free else None
    if not kinds:
        return forcing.free(closing) if _is_free(forcing, schema) else None
    is_python = as_python and is_any_boolean(schema, root)
    written = PYTHON_BOOLEAN if is_python else json_value(forcing, schema, root)
    return written and f"{written} {forcing.text(closing)}"


def text_value(forcing: Forcing, schema: Schema, closing: str) -> str | None:
    """The rule of a text without quotes and of what closes it."""
    if not schema.keys() <= _OF_TEXTS:
        return None
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices is not None:
        if not forcing.may_visit(len(choices) * _PART):
            return None
        return forcing.rule(" | ".join(forcing.text(f"{choice}{closing}") for choice in choices))
    pattern = schema.get("pattern")
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    if not pattern:
        is_any = (least, most) == (0, "")
        return forcing.free(closing, "(?s:.*)" if is_any else f"(?s:.{{{least},{most}}})")
    if (least, most) != (0, ""):
        return None
    before = "" if pattern.startswith("^") else "(?s:.*)"
    behind = "" if pattern.endswith("$") else "(?s:.*)"
    inner = pattern.removeprefix("^").removesuffix("$")
    return forcing.free(closing, f"{before}({inner}){behind}")


def json_value(forcing: Forcing, schema: Schema, root: Schema) -> str | None:
    """The rule of a value as JSON, with the definitions that it refers to."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    whole = {**schema, **definitions}
    return forcing.json(whole) if _refers_to_definitions(forcing, whole) else None


def followed(schema: Schema, root: Schema) -> Schema:
    """The schema that a bare reference means."""
    for _ in range(_MAX_REFERENCES):
        if "$ref" not in schema or not schema.keys() - {"$ref"} <= _REMARKS:
            break
        found = resolved(schema, root)
        if not isinstance(found, Mapping):
            break
        schema = found
    return schema


def is_any_boolean(schema: Schema, root: Schema) -> bool:
    """Whether it asks for true or false and no more."""
    return kinds_of(schema, root) == {"boolean"} and schema.keys() <= _REMARKS


def is_nameable(tool: Tool) -> bool:
    """Whether a function's arguments may be written without quotes around their names."""
    return all(name.isidentifier() for name in properties(tool.schema))


def _is_free(forcing: Forcing, schema: Schema) -> bool:
    """Whether it asks for nothing but types."""
    if not forcing.may_visit(_PART):
        return False
    inner = schema.get("anyOf", ())
    return schema.keys() <= _REMARKS | {"anyOf"} and all(
        isinstance(each, Mapping) and _is_free(forcing, each) for each in inner
    )


def _refers_to_definitions(forcing: Forcing, value: Any) -> bool:
    if not forcing.may_visit(_PART):
        return False
    if isinstance(value, list):
        return all(_refers_to_definitions(forcing, each) for each in value)
    if not isinstance(value, Mapping):
        return True
    reference = value.get("$ref")
    if isinstance(reference, str) and not reference.startswith(("#/$defs/", "#/definitions/")):
        return False
    return all(_refers_to_definitions(forcing, each) for each in value.values())
