"""What a set may say; what is none is named with file and line, and nothing is left out."""

from pathlib import Path

import pytest
from evaluation_site import chat, write_set

from trivet.server.evaluation.case import read_set
from trivet.server.evaluation.config import parse_config
from trivet.server.evaluation.faults import SetFault

EXACT = {"match": "exact", "value": "a"}
BAD = {
    "an unknown matcher": (chat("a", "b", {"match": "exakt"}), "no matcher 'exakt'; did you mean"),
    "no matcher": (chat("a", "b"), "it expects nothing"),
    "a matcher without its value": (chat("a", "b", {"match": "exact"}), "exact needs 'value'"),
    "a matcher with another key": (chat("a", "b", {**EXACT, "k": 1}), "exact takes no 'k'"),
    "a wrong kind": (
        chat("a", "b", {"match": "top_k", "output": "y", "value": True}),
        "top_k.value has a value of the wrong kind: True",
    ),
    "a broken pattern": (chat("a", "b", {"match": "regex", "pattern": "("}), "no regular expres"),
    "a broken path": (chat("a", "b", {"match": "json_path", "path": "a", "value": 1}), "no path"),
    "a lost schema": (chat("a", "b", {"match": "json_schema", "schema": "x.json"}), "cannot be"),
    "two ways to ask": ({**chat("a", "b", EXACT), "prompt": "c"}, "give one of messages, prompt"),
    "an unknown key": ({**chat("a", "b", EXACT), "expected": 1}, "a case has no 'expected'"),
    "no object": ([1], "a case is an object"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_case_that_is_none_is_named(what: str, tmp_path: Path) -> None:
    case, told = BAD[what]
    path = write_set(tmp_path / "s.jsonl", chat("first", "b", EXACT), case)
    with pytest.raises(SetFault) as refused:
        read_set(path)

    assert str(refused.value).startswith(f"{path}:2: ")
    assert told in str(refused.value)


def test_a_line_cut_in_half_is_named(tmp_path: Path) -> None:
    path = write_set(tmp_path / "s.jsonl", chat("first", "b", EXACT))
    path.write_text(path.read_text() + '{"id": "second", "mess')
    with pytest.raises(SetFault, match=r"s\.jsonl:2: it is no JSON"):
        read_set(path)


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_set(tmp_path / "s.jsonl", chat("a", "b", EXACT), chat("a", "c", EXACT))
    with pytest.raises(SetFault, match="case 'a' is at"):
        read_set(path)


CONFIGS = {
    'gate = "requried"': "gate is 'required' or 'off'",
    'gate = "required"': "there is no set to pass",
    'sets = ["../other/set.jsonl"]': "is not in the folder 'evals'",
    "min_pas_rate = 1": "did you mean 'min_pass_rate'?",
    "min_pass_rate = 2": "a number from 0 to 1, got 2",
    "[judge]": "names no model",
    '[judge]\nmodel = "j"\nurl = "file:///etc"': "http:// or https://",
    '[judge]\nmodel = "j"\napi_key_env = "AWS_SECRET"': "is to begin with JUDGE_, got 'AWS_SECRET'",
    '[[lm_eval]]\ntask = "x"': "task 'x' lacks at_least",
    '[[lm_eval]]\ntask = "x"\nat_leats = 1': "did you mean 'at_least'?",
    '[[lm_eval]]\ntask = "x"\nat_least = 1\nlimit = inf': "limit is to be a whole number",
    '[[lm_eval]]\ntask = "x"\nat_least = 1\nlimit = 0.5': "got 0.5",
    "gate = ": "is no TOML",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(SetFault) as refused:
        parse_config(text, tmp_path)

    assert str(refused.value).startswith("eval.toml")
    assert CONFIGS[text] in str(refused.value)
