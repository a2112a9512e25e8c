"""Arguments that are written as plain text: which JSON they are, by the schema. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trivet.backends.formats.grammar import Schema
from trivet.backends.formats.python_text import as_json

Kinds = frozenset[str]
ANY: Kinds = frozenset()
"""The schema does not say."""
TEXT: Kinds = frozenset({"string"})
MAX_SCHEMAS = 256
"""As many are looked at to know the types of one value; with more, it may be anything."""
_WORDS = {"true": "true", "false": "false", "none": "null", "null": "null"}


def kinds_of(schema: Any, root: Schema) -> Kinds:
    """The types that a value may have. Looks at so many schemas and no more, for schemas are the
    clients', and may refer to themselves in many ways."""
    found: set[str] = set()
    waiting, num_seen, followed = [schema], 1, set[Any]()
    while waiting:
        here = waiting.pop()
        kinds = _own_kinds(here)
        if kinds:
            found |= kinds
            continue
        more = _behind(here, root, followed)
        num_seen += len(more or ())
        if more is None or num_seen > MAX_SCHEMAS:
            return ANY
        waiting += more
    return frozenset(found)


def _own_kinds(schema: Any) -> Kinds:
    """What a schema says by itself."""
    if not isinstance(schema, Mapping):
        return ANY
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list):
        return frozenset(each for each in named if isinstance(each, str))
    if "const" in schema:
        return frozenset({_kind(schema["const"])})
    values = schema.get("enum")
    return frozenset(map(_kind, values)) if isinstance(values, list) else ANY


def _behind(schema: Any, root: Schema, followed: set[Any]) -> Sequence[Any] | None:
    """The schemas that tell instead of one, but for references that were followed before; None:
    there are none, so it may be anything."""
    if not isinstance(schema, Mapping) or "enum" in schema:
        return None
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list):
            return schema[key] or None
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return None
    if reference in followed:
        return ()
    followed.add(reference)
    return (resolved(schema, root),)


def resolved(schema: Schema, root: Schema) -> Any:
    """What a `$ref` within the schema of arguments refers to; None where that is not there."""
    found: Any = root
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def properties(schema: Schema) -> Mapping[str, Any]:
    """The arguments by name, as far as the schema tells."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def kinds_of_argument(schema: Schema | None, name: str) -> Kinds:
    """The types that a function's argument may have."""
    if schema is None:
        return ANY
    return kinds_of(properties(schema).get(name), schema)


def text_as_json(text: str, kinds: Kinds) -> str:
    """What a model wrote for a value of one of these types. What is none of them is a string."""
    if kinds == TEXT:
        return quoted(text)
    bare = text.strip()
    word = _WORDS.get(bare.lower(), bare)
    for written in (word, as_json(bare) if bare[:1] in ("{", "[", "(") else ""):
        kind = _kind_of_json(written)
        if kind and kind != "string" and _fits(kind, kinds):
            return written
        if kind == "string" and kinds and "string" not in kinds:
            return quoted(text)
    return quoted(text)


def quoted(text: str) -> str:
    """A JSON string."""
    return json.dumps(text, ensure_ascii=False)


def inside_quotes(text: str) -> str:
    """A part of one."""
    return quoted(text)[1:-1]


def _fits(kind: str, kinds: Kinds) -> bool:
    return not kinds or kind in kinds or (kind in ("integer", "number") and bool(_NUMBERS & kinds))


def _kind_of_json(text: str) -> str:
    """The type of a JSON text; empty for what is none."""
    try:
        return _kind(json.loads(text, parse_constant=_refuse)) if text else ""
    except (ValueError, RecursionError):
        return ""


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return _KINDS.get(type(value), "")


_NUMBERS = frozenset({"integer", "number"})
_KINDS: Mapping[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}
