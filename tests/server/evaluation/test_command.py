"""`trivet eval` on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from evaluation_site import Site, chat, open_site, write_set

from trivet.server.cli import main

EXACT = {"match": "exact", "value": "HELLO"}
TRACE = [
    {"id": 1, "model_name": "m", "model_version": 1, "request_id": "r1"},
    {"id": 1, "activity": "TENSOR_QUEUE_INPUT", "tensor": {"name": "x", "data": "1,2", "shape":
     "1,2", "dtype": "FP32"}},
    {"id": 1, "activity": "TENSOR_BACKEND_OUTPUT", "tensor": {"name": "y", "data": "2,4", "shape":
     "2", "dtype": "FP32"}},
]  # fmt: skip
SAID = '[{"role": "user", "content": "hello, you"}]'
TRACED_CHAT = [
    {"id": 2, "model_name": "m", "model_version": 1, "request_id": "chatcmpl-1"},
    {"id": 2, "activity": "TENSOR_QUEUE_INPUT", "tensor": {"name": "messages", "data": SAID,
     "shape": "1", "dtype": "BYTES"}},
    {"id": 2, "activity": "TENSOR_BACKEND_OUTPUT", "tensor": {"name": "text_output", "data":
     "HELLO, YOU", "shape": "1", "dtype": "BYTES"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_site() as opened:
        opened.say = str.upper
        yield opened


def trivet(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def test_exit_codes_are_for_build_servers(site: Site, tmp_path: Path) -> None:
    good = write_set(tmp_path / "good.jsonl", chat("a", "hello", EXACT))
    bad = write_set(tmp_path / "bad.jsonl", chat("a", "bye", EXACT))
    broken = write_set(tmp_path / "broken.jsonl", chat("a", "bye", {"match": "nothing"}))
    common = ("--url", site.url, "--history", tmp_path / "history")

    passed = trivet("m@stable", good, *common)
    assert (passed.exit_code, passed.output.splitlines()[0]) == (
        0, "m version 2: passed, 1 of 1 cases",
    )  # fmt: skip
    assert trivet("m", good, bad, *common).exit_code == 1
    assert trivet("m", good, bad, *common, "--min-pass-rate", 0.5).exit_code == 0
    refused = trivet("m", broken, *common)
    assert (refused.exit_code, "there is no matcher 'nothing'" in refused.output) == (2, True)


def test_reports_go_to_a_file_in_several_forms(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_set(folder / "evals" / "golden.jsonl", chat("a", "hello", EXACT))
    config = folder / "eval.toml"
    config.write_text('sets = ["evals/golden.jsonl"]')
    for form, begin in (("junit", "<?xml"), ("html", "<!doctype"), ("json", "{")):
        target = tmp_path / f"report.{form}"
        common = ("--url", site.url, "--history", tmp_path / "history", "-o", form)
        done = trivet("m", "--config", config, *common, "--output-file", target)
        assert done.exit_code == 0, done.output
        assert target.read_text().startswith(begin)


def test_a_traced_request_becomes_a_case(site: Site, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps(TRACE)[:-1])  # its server was killed
    target = tmp_path / "set.jsonl"
    added = trivet("add", target, "--from-trace", trace, "--request", "r1", "--id", "doubled")
    assert added.exit_code == 0, added.output
    run = trivet("m", target, "--url", site.url, "--history", tmp_path / "history")

    assert json.loads(target.read_text())["inputs"] == {"x": [[1.0, 2.0]]}
    assert run.exit_code == 0, run.output
    twice = trivet("add", target, "--from-trace", trace, "--request", "r1", "--id", "doubled")
    assert "it has a case 'doubled' already" in twice.output
    lost = trivet("add", target, "--from-trace", trace, "--request", "r9")
    assert "there is no request 'r9'; there are r1" in lost.output


def test_a_traced_chat_becomes_a_case(site: Site, tmp_path: Path) -> None:
    trace, target = tmp_path / "trace.json", tmp_path / "set.jsonl"
    trace.write_text(json.dumps(TRACED_CHAT))
    added = trivet("add", target, "--from-trace", trace, "--request", "chatcmpl-1")
    assert added.exit_code == 0, added.output
    run = trivet("m", target, "--url", site.url, "--history", tmp_path / "history")

    assert json.loads(target.read_text())["messages"] == json.loads(SAID)
    assert run.exit_code == 0, run.output


def test_help_has_the_options_of_what_is_meant_without_a_verb() -> None:
    told = trivet("--help").output

    assert "eval MODEL[@LABEL] [SETS]..." in " ".join(told.split())
    assert "--min-pass-rate" in told
    assert "add" in told


def test_what_an_evaluation_keeps_lies_in_the_state_folder(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_set(tmp_path / "good.jsonl", chat("a", "hello", EXACT))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    told = trivet("m", good, "--url", site.url, "--state-dir", tmp_path / "state")

    assert told.exit_code == 0
    assert list(here.iterdir()) == []
    assert (tmp_path / "state/evaluations-by-hand/reports").is_dir()
