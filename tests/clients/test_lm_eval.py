"""EleutherAI's evaluation harness, unmodified, over a task that a test has written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from client_environments import ClientEnvironment
from llm_site import caller
from serving import RunningServer

from trivet.server.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
LIKELY = """
task: likely
dataset_path: json
dataset_kwargs: { data_files: { test: "%s" } }
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [ { metric: acc } ]
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs: { data_files: { test: "%s" } }
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{wanted}}"
generation_kwargs: { until: ["\\n"], max_gen_toks: 6, temperature: 0 }
metric_list: [ { metric: exact_match, regexes_to_ignore: ['\\s+'] } ]
"""
QUESTIONS = [
    ("The capital of France is", [" Paris", " refrigerator"], 0),
    ("Two plus two is", [" Thursday", " four"], 1),
    ("The sun rises in the", [" east", " microwave oven"], 0),
]


@pytest.fixture(scope="module")
def server(real_language_server: RunningServer) -> RunningServer:
    """The questions are for a model that has learnt something."""
    return real_language_server


@pytest.fixture(scope="module")
def environment(environment_of: Callable[[str], ClientEnvironment]) -> ClientEnvironment:
    return environment_of("lm-eval")


def written(server: RunningServer, question: str) -> str:
    """What the model goes on with, as this server's own tests ask it."""
    body = {
        "model": "smollm2", "prompt": question, "max_tokens": 6, "temperature": 0, "stop": ["\n"],
    }  # fmt: skip
    text: str = caller(server)("/v1/completions", body).json["choices"][0]["text"]
    return text


@pytest.fixture
def tasks(server: RunningServer, tmp_path: Path) -> Path:
    """A folder of two tasks and their data."""
    data = tmp_path / "data.jsonl"
    rows = [
        {"question": q, "choices": choices, "answer": answer, "wanted": written(server, q)}
        for q, choices, answer in QUESTIONS
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "likely.yaml").write_text(LIKELY % data)
    (tmp_path / "written.yaml").write_text(WRITTEN % data)
    return tmp_path


def evaluated(environment: ClientEnvironment, tasks: Path, model: str, *arguments: str) -> Any:
    """The results by task."""
    environment.run(
        "lm_eval", "--model", model, "--include_path", str(tasks), "--output_path",
        str(tasks / "out"), *arguments, env=OFFLINE,
    )  # fmt: skip
    (found,) = (tasks / "out").rglob("results*.json")
    return json.loads(found.read_text())["results"]


def test_completions_are_scored_and_written(
    environment: ClientEnvironment, tasks: Path, server: RunningServer
) -> None:
    url = f"http://{server.http}/v1/completions"
    given = f"model=smollm2,base_url={url},num_concurrent=2,tokenizer_backend=remote"
    results = evaluated(
        environment, tasks, "local-completions", "--model_args", given,
        "--tasks", "likely,written",
    )  # fmt: skip
    assert results["likely"]["acc,none"] == 1.0
    assert results["written"]["exact_match,none"] == 1.0


def test_chats_are_written(
    environment: ClientEnvironment, tasks: Path, server: RunningServer
) -> None:
    url = f"http://{server.http}/v1/chat/completions"
    results = evaluated(
        environment, tasks, "local-chat-completions", "--model_args",
        f"model=smollm2,base_url={url},num_concurrent=2", "--tasks", "written",
        "--apply_chat_template",
    )  # fmt: skip
    assert "exact_match,none" in results["written"]


def gate_of(at_least: float, metric: str = "acc") -> str:
    return f"""
[[lm_eval]]
task = "likely"
metric = "{metric}"
at_least = {at_least}
limit = 3
[[lm_eval]]
task = "written"
metric = "exact_match"
at_least = 0.5
"""


def evaluate(
    environment: ClientEnvironment, folder: Path, config: str, server: RunningServer
) -> Result:
    """Our own command, with the harness in its environment."""
    (folder / "eval.toml").write_text(config)
    arguments = [
        "eval", "smollm2", f"--config={folder / 'eval.toml'}", f"--url=http://{server.http}",
        f"--lm-eval={environment.programs / 'lm_eval'}", f"--history={folder / 'history'}",
    ]  # fmt: skip
    return CliRunner(env=OFFLINE).invoke(main, arguments)


def test_tasks_are_bounds_of_an_evaluation(
    environment: ClientEnvironment, tasks: Path, server: RunningServer, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    own = folder / "evals/lm-eval"
    own.mkdir(parents=True)
    for task in tasks.glob("*.yaml"):
        task.rename(own / task.name)

    passed = evaluate(environment, folder, gate_of(0.9), server)
    assert passed.exit_code == 0, passed.output
    assert "lm-eval likely: acc: 1 (at least 0.9)" in passed.output
    assert "lm-eval written: exact_match: 1 (at least 0.5)" in passed.output

    refused = evaluate(environment, folder, gate_of(1.5), server)
    assert refused.exit_code == 1
    assert "not passed: lm-eval likely: acc is 1, and at least 1.5" in refused.output
    unknown = evaluate(environment, folder, gate_of(0.5, "f1"), server)
    assert unknown.exit_code == 2
    assert "there is no such figure; there are acc,none" in unknown.output
