"""Versions that are dropped beside a server: it evaluates them itself before they get traffic."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation_site import write_set
from patience import patience
from serving import RunningServer, start_server, write_adder

from trivet.server.auth.keys import digest_of, new_secret

CONFIG = 'gate = "required"\nsets = ["evals/golden.jsonl"]\n'
X = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}


def sum_case(value: float, name: str = "sum") -> dict[str, Any]:
    expect = {"match": "numeric", "output": "y", "value": [value], "tolerance": 0.5}
    return {"id": name, "inputs": {"x": [1.0]}, "expect": expect}


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {scope: new_secret() for scope in ("infer", "admin")}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate") / "models"
    folder.mkdir()
    write_set(folder / "m" / "evals" / "golden.jsonl", sum_case(2.0))
    (folder / "m" / "eval.toml").write_text(CONFIG)
    write_adder(folder, "m", 1, amount=1.0)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, keys: dict[str, str]) -> Iterator[RunningServer]:
    scopes = {"infer": '["infer"]', "admin": '["infer", "admin"]'}
    tables = [
        f'[[keys]]\nname = "{scope}"\nhash = "sha256:{digest_of(secret).hex()}"\n'
        f"scopes = {scopes[scope]}\n"
        for scope, secret in keys.items()
    ]
    keys_file = repository.parent / "keys.toml"
    keys_file.write_text("".join(tables))
    state = repository.parent / "state"
    server = start_server(repository, f"--auth-keys-file={keys_file}", f"--state-dir={state}")
    yield server
    server.end()


@pytest.fixture
def ask(server: RunningServer, keys: dict[str, str]) -> Callable[..., tuple[int, Any]]:
    def send(path: str, body: object, scope: str = "infer") -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://{server.http}{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {keys[scope]}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=patience()) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return send


def test_what_is_dropped_serves_once_it_has_passed(
    server: RunningServer, ask: Callable[..., tuple[int, Any]], repository: Path
) -> None:
    def infer(place: str = "", scope: str = "infer") -> tuple[int, Any]:
        return ask(f"/v2/models/m{place}/infer", {"inputs": [X]}, scope)

    def state(version: str) -> dict[str, str]:
        rows = ask("/v2/repository/index", {}, "admin")[1]
        return next((row for row in rows if row.get("version") == version), {})

    server.wait_until(lambda: infer()[0] == 200, "passed")
    assert infer()[1]["model_version"] == "1"

    write_adder(repository, "m", 2, amount=5.0)
    server.wait_until(lambda: "not passed" in state("2").get("reason", ""), "evaluated")
    assert "the part of cases that pass is 0, and at least 1" in state("2")["reason"]
    assert infer()[1]["model_version"] == "1", "traffic stays where it was"
    assert infer("/versions/candidate", "admin")[1]["outputs"][0]["data"] == [6.0]
    refused = infer("/versions/2")
    assert refused[0] == 403
    assert "needs the scope 'admin'" in refused[1]["error"]

    write_adder(repository, "m", 3, amount=1.0)
    server.wait_until(lambda: infer()[1].get("model_version") == "3", "passed")

    write_set(
        repository / "m" / "evals" / "golden.jsonl", {**sum_case(2.0), "expect": {"match": "x"}}
    )
    write_adder(repository, "m", 4, amount=1.0)
    server.wait_until(lambda: "broke off" in state("4").get("reason", ""), "refused")
    assert "golden.jsonl:1: there is no matcher 'x'" in state("4")["reason"]
    assert infer()[1]["model_version"] == "3"
