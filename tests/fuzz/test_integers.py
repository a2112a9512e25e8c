"""Integers at the ends of what JSON can say, in each place where a route takes one: a client's
mistake wherever they are too much, and never a fault of the server."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from described_site import described
from patience import patience

EDGES = (2**63, 2**64 - 1, -(2**63))
"""Past what 64 bits with a sign hold, which JSON's own integers do not know, and the least."""
_DEPTH = 6


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with described() as url:
        yield url


def test_no_integer_is_the_servers_fault(url: str) -> None:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=patience()) as answer:
        document = json.load(answer)
    schemas = Schemas(document["components"]["schemas"])
    asked, faults = 0, []

    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            for body in schemas.with_edges(content.get("application/json", {}).get("schema", {})):
                asked += 1
                if (status := post(url + re.sub(r"{[^}]*}", "m", path), body)) == 500:
                    faults.append((path, body, status))

    assert faults == []
    assert asked > 200


def post(url: str, body: object) -> int:
    """The status; the answer of a stream is not read."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=patience()) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Schemas:
    """Makes values that fit a JSON schema."""

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named

    def with_edges(self, schema: dict[str, Any], depth: int = 0) -> Iterator[Any]:
        """The least value, with one of its integers, or one that it may have, at an edge."""
        schema = self._followed(schema)
        if depth > _DEPTH:
            return
        for option in schema.get("anyOf", []):
            yield from self.with_edges(option, depth + 1)
        if schema.get("type") == "integer":
            yield from EDGES
        elif schema.get("type") == "array":
            yield from ([each] for each in self.with_edges(schema.get("items", {}), depth + 1))
        for name, inner in schema.get("properties", {}).items():
            least = self._least(schema)
            yield from ({**least, name: each} for each in self.with_edges(inner, depth + 1))

    def _least(self, schema: dict[str, Any]) -> Any:
        schema = self._followed(schema)
        if "anyOf" in schema:
            return self._least(schema["anyOf"][0])
        if "enum" in schema or "const" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        match schema.get("type"):
            case "object":
                properties = schema.get("properties", {})
                return {key: self._least(properties[key]) for key in schema.get("required", [])}
            case "array":
                return [self._least(schema.get("items", {}))]
            case "integer" | "number":
                return 1
            case "boolean":
                return False
            case _:
                return "m"

    def _followed(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._named[schema["$ref"].rpartition("/")[2]]
        return schema
