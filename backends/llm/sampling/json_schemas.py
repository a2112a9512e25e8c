"""JSON schemas as the grammar library is to read them. Pure.

llguidance refuses keywords and formats that it does not know even where they ask for nothing.
JSON Schema takes an unknown format as a remark (2020-12 validation, 7.2.1), and generators of
schemas write both. So what narrows no answer is left out here, and what would narrow one stays, for
the library to refuse.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose values are schemas by name."""
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = (
    "items", "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if",
    "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_ANYTHING: tuple[Any, ...] = (True, {})
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "uniqueItems": (False,),
    "propertyNames": _ANYTHING,
    "unevaluatedItems": _ANYTHING,
    "unevaluatedProperties": _ANYTHING,
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "not": (False,),
}
"""Values with which a keyword asks for nothing."""
_OF_ARRAYS = ("uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems")
_OF_OBJECTS = (
    "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
    "unevaluatedProperties",
)  # fmt: skip
_MAX_REFERENCES = 32


def without_remarks(schema: Any, knows_format: Callable[[str], bool]) -> Any:
    """The schema without what narrows no answer."""
    if not isinstance(schema, Mapping):
        return schema
    return {
        name: _inside(name, value, knows_format)
        for name, value in schema.items()
        if not _is_remark(name, value, schema, knows_format)
    }


def _inside(name: str, value: Any, knows_format: Callable[[str], bool]) -> Any:
    if name in _MAPS and isinstance(value, Mapping):
        return {key: without_remarks(each, knows_format) for key, each in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [without_remarks(each, knows_format) for each in value]
    return without_remarks(value, knows_format) if name in _SINGLE else value


def _is_remark(name: str, value: Any, schema: Schema, knows_format: Callable[[str], bool]) -> bool:
    # 0 == False and 1 == True, which are no schemas.
    if any(value == each and type(value) is type(each) for each in _NEUTRAL.get(name, ())):
        return True
    if name == "format":
        return isinstance(value, str) and not knows_format(value)
    if name == "uniqueItems" and schema.get("maxItems") in (0, 1):
        return True
    if name in ("minContains", "maxContains"):
        return "contains" not in schema
    if name in ("then", "else"):
        return "if" not in schema
    if name == "if":
        return not ("then" in schema or "else" in schema)
    kind = schema.get("type")
    return isinstance(kind, str) and (
        (name in _OF_ARRAYS and kind != "array") or (name in _OF_OBJECTS and kind != "object")
    )


@dataclass(slots=True)
class ClosedObject:
    """What an object may have, where it may have nothing else."""

    names: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    is_closed: bool = False

    def overlaps(self) -> Iterator[tuple[str, list[str]]]:
        """Patterns, and the names that each of them matches."""
        for pattern in self.patterns if self.is_closed else ():
            try:
                matching = [name for name in dict.fromkeys(self.names) if re.search(pattern, name)]
            except re.error:
                continue  # the library reads other expressions; it will say what it thinks
            if matching:
                yield pattern, matching

    def add(self, schema: Schema, root: Schema, num_references: int = 0) -> None:
        """What a schema says of the object, and what those say that hold with it."""
        for name, found in (("properties", self.names), ("patternProperties", self.patterns)):
            given = schema.get(name)
            found.extend(given if isinstance(given, Mapping) else ())
        self.names += [name for name in _list(schema.get("required")) if isinstance(name, str)]
        self.is_closed |= schema.get("additionalProperties") is False
        for part in (*_list(schema.get("allOf")), _resolved(schema.get("$ref"), root)):
            if isinstance(part, Mapping) and num_references < _MAX_REFERENCES:
                self.add(part, root, num_references + 1)


def closed_objects(schema: Any, root: Schema) -> Iterator[ClosedObject]:
    """Of the schema and of all within it."""
    if not isinstance(schema, Mapping):
        return
    found = ClosedObject()
    found.add(schema, root)
    if found.is_closed and found.patterns:
        yield found
    for name, value in schema.items():
        inner: list[Any] = []
        if name in _MAPS and isinstance(value, Mapping):
            inner = list(value.values())
        elif name in _LISTS:
            inner = _list(value)
        elif name in _SINGLE:
            inner = [value]
        for each in inner:
            yield from closed_objects(each, root)


def probe(pattern: str, names: list[str]) -> tuple[str, str]:
    """A schema, and the beginning of an answer to it, behind which only another name that the
    pattern matches can come."""
    number = {"type": "integer"}
    schema = {
        "type": "object",
        "properties": dict.fromkeys(names, number),
        "required": names,
        "patternProperties": {pattern: number},
        "additionalProperties": False,
    }
    begun = ",".join(f"{json.dumps(name)}:1" for name in names)
    return json.dumps(schema), f"{{{begun},"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _resolved(reference: Any, root: Schema) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
