"""Models and versions that do not serve: each case has its own words, and near names are named."""

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from serving import RunningServer, write_adder, write_identity

from trivet.server.cli import main

SCALAR = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., RunningServer]
) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        write_adder(root, "resnet50", version)
    write_identity(root, "asleep")
    (root / "odd").mkdir()
    for stranger in ("odd/net.pth", "net.pth"):
        (root / stranger).write_bytes(b"PK")
    write_identity(root, "broken", more='parameters { key: "fail_with" }').joinpath(
        "config.pbtxt"
    ).write_text("backend: 'warp'")
    return serve(
        root,
        "--model-control-mode=explicit",
        "--load-model=resnet50",
        "--load-model=broken",
        "--load-model=asleap",
        "--exit-on-error=false",
        "--strict-readiness=false",
    )


def refusal(server: RunningServer, path: str, body: Any = SCALAR) -> str:
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.post(path, body)
    with refused.value as answer:
        error: Any = json.load(answer)["error"]
    return str(error["message"] if isinstance(error, dict) else error)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("resnet5", "'resnet5' is not found; did you mean 'resnet50'?"),
        ("ResNet50", "'ResNet50' is not found; did you mean 'resnet50'?"),
        ("another", "Request for unknown model: 'another' is not found"),
        ("odd", "'odd' is not found: what lies in the repository under that name is not taken for"),
        ("net", "'net' is not found: what lies in the repository under that name is not taken for"),
        ("asleep", "'asleep' has no available versions: it is in the repository, but it is not"),
        ("broken", "'broken' has no available versions: it does not serve; the repository index"),
        (
            "resnet50/versions/1",
            "'resnet50' version 1 is not found: it is in the repository, but version_policy "
            "(latest by default) serves 3 only",
        ),
        ("resnet50/versions/9", "'resnet50' version 9 is not found"),
    ],
)
def test_what_is_asked_for_and_does_not_serve_is_told(
    server: RunningServer, path: str, text: str
) -> None:
    assert text in refusal(server, f"/v2/models/{path}/infer")


def test_a_load_of_another_name_names_what_may_be_meant(server: RunningServer) -> None:
    error = refusal(server, "/v2/repository/models/aslep/load", {})

    assert error == (
        "failed to load 'aslep', failed to poll from model repository; did you mean 'asleep'?"
    )
    reason = server.index()["asleap", ""]["reason"]
    assert reason.endswith("; did you mean 'asleep'?")


def test_the_openai_api_names_what_may_be_meant(server: RunningServer) -> None:
    body = {"model": "resnet51", "prompt": "x"}

    assert refusal(server, "/v1/completions", body) == (
        "The model `resnet51` does not exist. Did you mean `resnet50`?"
    )


def test_a_key_of_the_settings_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "trivet.toml").write_text("http_prot = 1\nzzz = 2\n")

    result = CliRunner().invoke(
        main, ["serve", f"--config-file={tmp_path / 'trivet.toml'}", str(tmp_path)]
    )

    text = " ".join(result.output.split())
    assert "unknown setting(s) http_prot, zzz; for 'http_prot', did you mean 'http_port'?" in text
