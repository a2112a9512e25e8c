"""GET /openapi.json: what can be asked over HTTP, by the table of routes and the fields' models."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from trivet import __version__
from trivet.server.auth.scopes import ROUTE_SCOPES, Scope
from trivet.server.http.answers import Answer
from trivet.server.http.operations import OPERATIONS, Operation
from trivet.server.http.routes import Call, Route

PATH = "/openapi.json"
_JSON = "application/json"
_REF = "#/components/schemas/{model}"
_NAME = re.compile(r"\{(\w+)\*?\}")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "description": "a text; of the OpenAI API an object",
            "anyOf": [
                {"type": "string"},
                {"type": "object", "required": ["message", "type", "param", "code"]},
            ],
        },
        "error_type": {"type": "string", "description": "of the TGI API"},
    },
}
_INFO = {
    "title": "trivet",
    "version": __version__,
    "description": "Triton's HTTP protocol, OpenAI's API and that of text-generation-inference.",
}
_NUMBERS = {"version": {"type": "integer", "minimum": 1}}
"""Schemas of path parameters that are no plain texts."""


class OpenApi:
    """The handler. The document is made when it is asked for first."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """`routes`: all others."""
        self._routes = [(route.method, route.template) for route in routes]
        self._text = b""

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.document)]

    async def document(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The document."""
        if not self._text:
            # Not orjson, which knows no 2^64: the bound of a seed.
            self._text = json.dumps(describe([*self._routes, ("GET", PATH)])).encode()
        return Answer((self._text,))


def describe(routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The document of these methods and templates."""
    models = {row.body for row in OPERATIONS.values() if row.body is not None}
    wanted = sorted(models, key=lambda model: f"{model.__module__}.{model.__qualname__}")
    schemas, definitions = models_json_schema(
        [(model, "validation") for model in wanted], ref_template=_REF
    )
    bodies = {model: schema for (model, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for method, template in routes:
        row = OPERATIONS[method, template]
        path = _NAME.sub(r"{\1}", template)
        body = None if row.body is None else bodies[row.body]
        paths.setdefault(path, {})[method.lower()] = _operation(method, template, row, body)
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "paths": paths,
        "components": {
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(
    method: str, template: str, row: Operation, body: Mapping[str, Any] | None
) -> dict[str, Any]:
    scope = ROUTE_SCOPES.get((method, template))
    described: dict[str, Any] = {
        "operationId": _identity(method, template),
        "tags": [row.tag],
        "summary": row.summary,
        "description": f"Scope of a key: {scope}" if scope is not Scope.OPEN else "Needs no key.",
        "security": [] if scope is Scope.OPEN else [{"bearer": []}, {"key": []}, {}],
        "parameters": [
            {"name": name, "in": "path", "required": True,
             "schema": _NUMBERS.get(name, {"type": "string", "minLength": 1})}
            for name in _NAME.findall(template)
        ],
        "responses": _responses(row),
    }  # fmt: skip
    if body is not None:
        content = {_JSON: {"schema": body}} | {media: {"schema": {}} for media in row.takes}
        described["requestBody"] = {"required": row.needs_body, "content": content}
    return described


def _responses(row: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": {}} for media in row.media}
    if row.answer is not None:
        content[_JSON] = {"schema": dict(row.answer)}
    good: dict[str, Any] = {"description": "as asked"}
    if content:
        good["content"] = content
    error = {"$ref": "#/components/schemas/Error"}
    responses: dict[str, Any] = {
        "200": good,
        "default": {
            "description": "why not; the status says what kind of reason it is",
            "content": {_JSON: {"schema": error}},
        },
    }
    if row.tag == "health":
        unwell = {_JSON: {"schema": {"type": "object"}}}
        responses |= {
            status: {"description": "not (yet, or any more)", "content": unwell}
            for status in ("400", "503")
        }
    return responses


def _identity(method: str, template: str) -> str:
    words = re.sub(r"\W+", "_", template).strip("_")
    # "/v2" and "/v2/" are two.
    return f"{method.lower()}_{words}{'_slash' if template.endswith('/') else ''}"
