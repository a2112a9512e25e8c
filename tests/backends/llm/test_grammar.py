"""Grammars on the real model: outputs match them, and a wrong one costs its own request only."""

import json
import re
import time
from dataclasses import replace

import pytest
from real_engine import GREEDY, DrivenEngine, needs_weights, open_engine, real_tokenizer, submit

from trivet.backends.api import Grammar

pytestmark = needs_weights
PROMPT = "Tell me of a person: "
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99},
                   "kind": {"enum": ["cat", "dog"]}},
    "required": ["age", "kind"], "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def driven() -> DrivenEngine:
    return open_engine()


def generated(driven: DrivenEngine, *grammars: Grammar | None) -> list[tuple[str, str, str]]:
    """Text, finish and error of each, run together."""
    tokenizer = real_tokenizer()
    prompt, ends = tokenizer.encode(PROMPT, add_special_tokens=False), tokenizer.eos_token_ids
    results = driven.run(
        [
            submit(str(i), prompt, replace(GREEDY, max_tokens=40, grammar=each), end_ids=ends)
            for i, each in enumerate(grammars)
        ]
    )
    found = [results[str(index)] for index in range(len(grammars))]
    return [
        (tokenizer.decode(each.tokens, skip_special_tokens=True), each.finish, each.error)
        for each in found
    ]


def test_outputs_match_their_grammars(driven: DrivenEngine) -> None:
    schema, regex, choice = generated(
        driven,
        Grammar("json_schema", json.dumps(SCHEMA)),
        Grammar("regex", r"[A-Z][a-z]{2,5}-\d{3}"),
        Grammar("choice", '["maybe so", "zebra", "\\"quoted\\""]'),
    )
    made = json.loads(schema[0])
    assert made.keys() == {"age", "kind"}
    assert made["age"] in range(100)
    assert made["kind"] in ("cat", "dog")
    assert re.fullmatch(r"[A-Z][a-z]{2,5}-\d{3}", regex[0])
    assert choice[0] in ("maybe so", "zebra", '"quoted"')
    assert {each[1] for each in (schema, regex, choice)} == {"stop"}


@pytest.mark.rows("O17")
@pytest.mark.parametrize(
    "bad",
    [
        Grammar("json_schema", '{"type": "object", "properties": {"a": {"type": "nonsense"}}}'),
        Grammar("json_schema", "{nothing"),
        Grammar("regex", "(unclosed"),
    ],
)
def test_bad_grammar_fails_only_its_own_request_and_soon(
    driven: DrivenEngine, bad: Grammar
) -> None:
    (alone,) = generated(driven, None)
    started_s = time.monotonic()
    failed, other = generated(driven, bad, None)
    assert time.monotonic() - started_s < 30  # the other's 40 tokens included
    assert failed[1] == "error"
    assert failed[2]
    assert other == alone


@pytest.mark.rows("O18")
@pytest.mark.parametrize(
    "regex", ["(a?){500}a{500}", "a{1000000}", "(((((a{100}){100}){100}){100}){100})"]
)
def test_exploding_grammar_ends_soon_with_an_error_that_names_the_field(
    driven: DrivenEngine, regex: str
) -> None:
    (alone,) = generated(driven, None)
    started_s = time.monotonic()
    ((_, finish, error),) = generated(driven, Grammar("regex", regex))
    assert time.monotonic() - started_s < 5
    assert finish == "error"
    assert error.startswith("structured_outputs: the grammar cannot be followed further: ")
    assert "\n" not in error
    assert generated(driven, Grammar("regex", regex), None)[1] == alone
