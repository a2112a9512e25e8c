"""S10: what models write and what clients make them write. Outputs are read in linear time and
never run; regular expressions of our own do not explode; schemas and grammars are bounded in size.

The parsers of calls are rows O21 and O22; grammars that explode in the engine O17-O19.
"""

import importlib
import json
import pkgutil
import re
import time
from importlib.util import find_spec
from typing import Any

import pytest
from http_site import all_routes
from patience import patience

import trivet.server
from trivet.backends.api import InvalidRequest
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.fields import parse
from trivet.server.http.routes import pattern_of

LONG = 100_000
ATTACKS = [
    "/v2/models/" + "/" * LONG, "/v2/repository/models/" + "/load" * (LONG // 5),
    "a" * LONG + "!", "0" * LONG + "x", "-" * LONG, " " * LONG + "x", "\t" * LONG + "!",
    "a." * (LONG // 2) + "/", "(" * LONG, "[" * LONG, "," * LONG, "a=" * (LONG // 2), "=" * LONG,
    "1.1" * (LONG // 3) + "x", "::" * (LONG // 2), "é" * LONG + "\0", "Aa1_-." * (LONG // 6) + "\n",
]  # fmt: skip


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every regular expression that a module of the server holds, and those of its routes."""
    found: dict[str, re.Pattern[Any]] = {}
    for module in pkgutil.walk_packages(trivet.server.__path__, "trivet.server."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue  # compiled
        if module.name.startswith("trivet.server.ray.") and find_spec("ray") is None:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                found[f"{module.name}.{name}"] = value
    for route in all_routes():
        found[f"{route.method} {route.template}"] = pattern_of(route.template)
    return found


def test_no_expression_of_ours_explodes() -> None:
    found = patterns()
    assert len(found) > 10
    slow = {}
    for name, pattern in found.items():
        for attack in ATTACKS:
            text: Any = attack.encode() if isinstance(pattern.pattern, bytes) else attack
            started_s = time.process_time()
            pattern.fullmatch(text)
            pattern.match(text)
            took_s = time.process_time() - started_s
            if took_s > patience(0.5):
                slow[name, attack[:10]] = took_s
    assert slow == {}


def asked(**fields: Any) -> bytes:
    document = {"model": "m", "messages": [{"role": "user", "content": "a"}], **fields}
    return json.dumps(document).encode()


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": value}}


@pytest.mark.more_of("O17", "O19")
@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": schema({"enum": [f"value {n}" for n in range(10**5)]})},
        {"response_format": schema({"description": "x" * 300_000})},
        {"response_format": {"type": "regex", "value": "(a|b)" * 100_000}},
        {"structured_outputs": {"regex": "x" * 300_000}},
        {"structured_outputs": {"grammar": "start: " + "a " * 200_000}},
        {"structured_outputs": {"choice": [f"choice {n}" for n in range(10_001)]}},
        {"structured_outputs": {"json": {"enum": list(range(100_000))}}},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_what_is_too_long_to_compile_is_refused_before_it_goes_on(fields: dict[str, Any]) -> None:
    started_s = time.monotonic()
    with pytest.raises(InvalidRequest, match="at most"):
        parse(ChatFields, asked(**fields)).grammar()
    assert time.monotonic() - started_s < patience(2)
