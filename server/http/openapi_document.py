"""The OpenAPI document: what can be asked over HTTP, by the rows of routes and their fields."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from trivet import __version__
from trivet.server.auth.scopes import Scope
from trivet.server.http.operations import Operation
from trivet.server.http.routes import Route

_JSON = "application/json"
_REF = "#/components/schemas/{model}"
_NAME = re.compile(r"\{(\w+)\*?\}")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "description": "a text; of the OpenAI and Anthropic APIs an object",
            "anyOf": [
                {"type": "string"},
                {"type": "object", "required": ["message", "type"]},
            ],
        },
        "error_type": {"type": "string", "description": "of the TGI API"},
        "type": {"type": "string", "description": "of the Anthropic API"},
    },
}
_INFO = {
    "title": "trivet",
    "version": __version__,
    "description": "Triton's HTTP protocol and the APIs of OpenAI, Anthropic and "
    "text-generation-inference.",
}
_NUMBERS = {"version": {"type": "integer", "minimum": 1}}
"""Schemas of path parameters that are no plain texts."""


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes."""
    models = {body: _fields(body) for row in routes if (body := row.operation.body)}
    wanted = sorted(set(models.values()), key=lambda model: model.__module__ + model.__qualname__)
    schemas, definitions = models_json_schema(
        [(model, "validation") for model in wanted], ref_template=_REF
    )
    bodies = {model: schema for (model, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for row in routes:
        path = _NAME.sub(r"{\1}", row.template)
        body = row.operation.body
        schema = bodies[models[body]] if body else None
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, schema)
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


def _fields(place: str) -> type[BaseModel]:
    module, _, name = place.partition(":")
    found: type[BaseModel] = getattr(import_module(f"{__package__}.{module}"), name)
    return found


def _operation(row: Route, body: Mapping[str, Any] | None) -> dict[str, Any]:
    scope, operation = row.scope, row.operation
    described: dict[str, Any] = {
        "operationId": _identity(row.method, row.template),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": f"Scope of a key: {scope}" if scope is not Scope.OPEN else "Needs no key.",
        "security": [] if scope is Scope.OPEN else [{"bearer": []}, {"key": []}, {}],
        "parameters": [
            {"name": name, "in": "path", "required": True,
             "schema": _NUMBERS.get(name, {"type": "string", "minLength": 1})}
            for name in _NAME.findall(row.template)
        ] + [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in operation.query.items()
        ],
        "responses": _responses(operation),
    }  # fmt: skip
    if body is not None:
        content = {_JSON: {"schema": body}} | {media: {"schema": {}} for media in operation.takes}
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": {}} for media in operation.media}
    if operation.answer is not None:
        content[_JSON] = {"schema": dict(operation.answer)}
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
    if operation.tag == "health":
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
