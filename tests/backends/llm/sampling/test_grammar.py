"""Grammars over a real vocabulary: outputs match, and a wrong one costs its own request only."""

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from patience import patience
from real_engine import (
    GREEDY,
    DrivenEngine,
    needs_weights,
    open_small_engine,
    real_tokenizer,
    submit,
)

from trivet.backends.api import Grammar, InvalidRequest
from trivet.backends.llm.messages import Abort
from trivet.backends.llm.sampling import grammar as grammars
from trivet.backends.llm.sampling.grammar_trial import GrammarTrial

pytestmark = needs_weights
PROMPT = "Tell me of a person: "
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99},
                   "kind": {"enum": ["cat", "dog"]}},
    "required": ["age", "kind"], "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> DrivenEngine:
    return open_small_engine(tmp_path_factory.mktemp("small"))


def generated(
    driven: DrivenEngine, *grammars: Grammar | None, max_tokens: int = 40
) -> list[tuple[str, str, str]]:
    """Text, finish and error of each, run together."""
    tokenizer = real_tokenizer()
    prompt, ends = tokenizer.encode(PROMPT, add_special_tokens=False), tokenizer.eos_token_ids
    results = driven.run(
        [
            submit(
                str(i), prompt, replace(GREEDY, max_tokens=max_tokens, grammar=each), end_ids=ends
            )
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


@pytest.mark.more_of("O17")
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
    (alone,) = generated(driven, None, max_tokens=5)
    started_s = time.monotonic()
    failed, other = generated(driven, bad, None, max_tokens=5)
    assert time.monotonic() - started_s < patience(30)  # the other's tokens included
    assert failed[1] == "error"
    assert failed[2]
    assert other == alone


@pytest.mark.more_of("O18")
@pytest.mark.parametrize(
    "regex", ["(a?){500}a{500}", "a{1000000}", "(((((a{100}){100}){100}){100}){100})"]
)
def test_exploding_grammar_ends_soon_with_an_error_that_names_the_field(
    driven: DrivenEngine, regex: str
) -> None:
    (alone,) = generated(driven, None, max_tokens=5)
    started_s = time.monotonic()
    ((_, finish, error),) = generated(driven, Grammar("regex", regex))
    assert time.monotonic() - started_s < patience(30)
    assert finish == "error"
    assert error.startswith("structured_outputs: the grammar cannot be followed further: ")
    assert "\n" not in error
    assert generated(driven, Grammar("regex", regex), None, max_tokens=5)[1] == alone


def chained_rules(count: int) -> str:
    rules = "\n".join(f'r{i}: "a{i}" r{i + 1}?' for i in range(count))
    return f'start: r0\n{rules}\nr{count}: "b"'


def chained_schemas(count: int) -> str:
    links = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(count)}
    return json.dumps({"$ref": "#/$defs/d0", "$defs": {**links, f"d{count}": {}}})


@pytest.mark.parametrize(
    "deep",
    [Grammar("lark", chained_rules(8000)), Grammar("json_schema", chained_schemas(3000))],
    ids=["rules", "schemas"],
)
def test_long_chains_of_rules_do_not_end_the_engine(driven: DrivenEngine, deep: Grammar) -> None:
    generated(driven, deep, max_tokens=3)
    ((_, finish, _),) = generated(driven, None, max_tokens=3)
    assert finish == "length"


ENDLESS = Grammar("json_schema", '{"type": "integer", "multipleOf": 999983}')
HUGE = Grammar("regex", "a?" * 100_000)


@pytest.mark.parametrize("grammar", [ENDLESS, HUGE], ids=["endless", "huge"])
def test_others_do_not_wait_for_a_grammar_that_takes_long_and_it_is_refused(
    driven: DrivenEngine, grammar: Grammar
) -> None:
    prompt = real_tokenizer().encode(PROMPT, add_special_tokens=False)
    few = replace(GREEDY, max_tokens=3)
    results = driven.run(
        [submit("bad", prompt, replace(few, grammar=grammar)), submit("good", prompt, few)]
    )
    assert list(results) == ["good", "bad"]
    assert results["bad"].error.startswith("structured_outputs: the grammar is too complex: ")
    assert generated(driven, Grammar("choice", '["a b c"]'))[0][0] == "a b c"


def test_a_choice_may_be_among_thousands(driven: DrivenEngine) -> None:
    choices = [f"number {i}. (of many)\n" for i in range(9_999)]
    ((text, finish, _),) = generated(driven, Grammar("choice", json.dumps(choices)))
    assert text in choices
    assert finish == "stop"


def test_a_request_that_is_aborted_while_its_grammar_is_compiled_is_never_answered(
    driven: DrivenEngine,
) -> None:
    prompt = real_tokenizer().encode(PROMPT, add_special_tokens=False)
    left = submit("left", prompt, replace(GREEDY, grammar=Grammar("regex", "[a-z]{4}")))
    driven.engine.inbox.put(left)
    driven.engine.inbox.put(Abort(["left"]))
    # The grammars are compiled in turn: the first is done when this one is.
    later = submit("later", prompt, replace(GREEDY, grammar=Grammar("choice", '["x"]')))
    assert list(driven.run([later])) == ["later"]


def test_the_same_grammar_is_tried_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = real_tokenizer()
    made = grammars.Grammars(tokenizer.to_json(), tokenizer.eos_token_ids[0], 49_152)
    tried: list[Grammar] = []
    monkeypatch.setattr(made._trial, "check", tried.append)
    regex, other = Grammar("regex", "[a-z]"), Grammar("regex", "[0-9]")
    for grammar in (regex, regex, other, regex):
        made.constraint(submit("a", [1], replace(GREEDY, grammar=grammar)))
    assert tried == [regex, other]


def test_what_a_library_prints_while_a_grammar_is_tried_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('raw words', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    tokenizer = real_tokenizer()
    trial = GrammarTrial(tokenizer.to_json(), tokenizer.eos_token_ids[0], 49_152)
    trial.check(Grammar("regex", "[a-z]"))
    with pytest.raises(InvalidRequest):
        trial.check(Grammar("regex", "["))
    trial.close()
    assert capfd.readouterr().out == "raw words\n", "it goes where the engine's own prints go"
