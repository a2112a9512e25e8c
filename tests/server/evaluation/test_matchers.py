"""What each matcher takes for right."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trivet.server.evaluation.answer import Answer, Call
from trivet.server.evaluation.bounded import BoundedChecks
from trivet.server.evaluation.faults import SetFault
from trivet.server.evaluation.matchers import parse_matcher

Y = np.array([0.1, 0.7, 0.2], dtype=np.float32)
DOCUMENT = json.dumps({"desk": "a", "items": [{"n": 1}, {"n": 2}]})
RIGHT: list[tuple[dict[str, Any], Answer]] = [
    ({"match": "exact", "value": "a b"}, Answer(" a b\n")),
    ({"match": "exact", "output": "y", "value": [1, 2]}, Answer(outputs={"y": np.array([[1, 2]])})),
    ({"match": "json_path", "path": "$.desk", "value": "a"}, Answer(DOCUMENT)),
    ({"match": "json_path", "path": "$.items[1].n", "value": 2}, Answer(DOCUMENT)),
    ({"match": "json_path", "path": "$['items'][*].n", "value": 2}, Answer(DOCUMENT)),
    ({"match": "numeric", "value": 3.1, "tolerance": 0.1}, Answer("3.14")),
    ({"match": "numeric", "output": "y", "value": [0.1, 0.7, 0.2]}, Answer(outputs={"y": Y})),
    ({"match": "top_k", "output": "y", "value": 2, "k": 2}, Answer(outputs={"y": Y})),
    (
        {"match": "tool_call", "name": "ask", "arguments": {"desk": "a"}},
        Answer(calls=[Call("ask", {"desk": "a", "n": 1})]),
    ),
]
WRONG: list[tuple[dict[str, Any], Answer, str]] = [
    ({"match": "exact", "value": "a", "strip": False}, Answer("a "), "expected 'a', got 'a '"),
    ({"match": "json_path", "path": "$.none", "value": 1}, Answer(DOCUMENT), "is 'nothing'"),
    ({"match": "json_path", "path": "$.desk", "value": 1}, Answer("no"), "it is no JSON"),
    ({"match": "numeric", "value": 3}, Answer("three"), "it is no number"),
    ({"match": "numeric", "output": "y", "value": [1]}, Answer(outputs={"y": Y}), "3 numbers, not"),
    (
        {"match": "numeric", "output": "y", "value": [0.1, 0.8, 0.2]},
        Answer(outputs={"y": np.array([0.1, np.nan, 0.2])}),
        "number 1 is nan, not 0.8",
    ),
    ({"match": "top_k", "output": "z", "value": 2}, Answer(outputs={"y": Y}), "no output 'z'"),
    ({"match": "tool_call", "name": "ask"}, Answer("text"), "it called nothing"),
]


class Nobody:
    """Helpers that are not needed."""


def parsed(given: dict[str, Any]) -> Any:
    return parse_matcher(given, Path(), "set.jsonl:1")


@pytest.mark.parametrize(("given", "answer"), RIGHT)
def test_right(given: dict[str, Any], answer: Answer) -> None:
    verdict = parsed(given).check("", answer, Nobody())

    assert verdict.passed, verdict.why


@pytest.mark.parametrize(("given", "answer", "why"), WRONG)
def test_wrong_and_why(given: dict[str, Any], answer: Answer, why: str) -> None:
    verdict = parsed(given).check("", answer, Nobody())

    assert not verdict.passed
    assert why in verdict.why


def test_patterns_and_schemas_are_looked_at_within_a_bound_of_time() -> None:
    """One process for all of it: it is ended where an answer would take for ever, and the next
    question gets another."""
    checks = BoundedChecks(timeout_s=1.0)
    schema = {"type": "object", "required": ["desk"]}
    endless = "a" * 40 + "!"
    try:
        assert checks.matches("(?i)HELLO", "oh, hello")
        assert not checks.matches("^hello", "oh, hello")
        assert checks.schema_fault(schema, {"desk": 1}) == ""
        assert "desk" in checks.schema_fault(schema, {})
        with pytest.raises(SetFault, match="it is no JSON schema"):
            checks.schema_fault({"type": "objekt"}, {})
        with pytest.raises(SetFault, match="nothing is fetched"):
            checks.schema_fault({"$ref": "http://127.0.0.1:1/x"}, {})
        with pytest.raises(SetFault, match="was not through with an answer after 1 s"):
            checks.matches("(a+)+$", endless)
        assert checks.matches("b", "b")
    finally:
        checks.close()
