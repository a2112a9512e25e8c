"""How many rows a request may have where no config says, over a real server."""

import json
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from serving import RunningServer

BATCHED = "max_batch_size: 8 dynamic_batching { }"


def write(root: Path, name: str, config: str = "") -> None:
    folder = root / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(onnx_models.add_sub_model())
    if config:
        (folder.parent / "config.pbtxt").write_text(config)


def ask(server: RunningServer, name: str, num_rows: int) -> None:
    """Sums of that many rows, each with its own values, which must be right."""
    values = [float(number) for number in range(num_rows * 4)]
    tensors = [
        {"name": name, "datatype": "FP32", "shape": [num_rows, 4], "data": values}
        for name in ("a", "b")
    ]
    answer: Any = server.post(f"/v2/models/{name}/infer", {"inputs": tensors})
    (found,) = [each for each in answer["outputs"] if each["name"] == "sum"]
    assert found["shape"] == [num_rows, 4]
    assert found["data"] == [2 * value for value in values]


def refusal(server: RunningServer, name: str, num_rows: int) -> str:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, name, num_rows)
    with refused.value as answer:
        return str(json.load(answer)["error"])


def config_of(server: RunningServer, name: str) -> Any:
    return json.loads(server.get(f"/v2/models/{name}/config")[1])


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., RunningServer]
) -> RunningServer:
    root = tmp_path_factory.mktemp("models")
    write(root, "free")
    write(root, "set", BATCHED)
    return serve(root)


@pytest.mark.parametrize("num_rows", [1, 31, 32, 33, 100, 1024])
def test_a_request_of_many_rows_is_answered_as_a_whole(
    server: RunningServer, num_rows: int
) -> None:
    before = statistics(server)

    ask(server, "free", num_rows)

    after = statistics(server)
    assert after["inference_count"] - before["inference_count"] == num_rows
    success = [each["inference_stats"]["success"]["count"] for each in (before, after)]
    assert success[1] - success[0] == 1, "it is one request"


def statistics(server: RunningServer) -> Any:
    (found,) = json.loads(server.get("/v2/models/free/stats")[1])["model_stats"]
    return found


def test_limits_of_requests_are_told(server: RunningServer) -> None:
    told = refusal(server, "free", 1025)
    assert "batch-size must be <= 1024 for 'free', got 1025" in told
    assert "--default-max-batch-size" in told
    assert "batch-size must be <= 8 for 'set', got 9" in refusal(server, "set", 9)
    config = config_of(server, "free")
    assert config["max_batch_size"] == 1024
    assert config["parameters"] == {"compute_batch_size": {"string_value": "32"}}
    assert config["dynamic_batching"]["preferred_batch_size"] == [32]
    assert config_of(server, "set")["parameters"] == {}


def test_options_change_the_limit(tmp_path: Path, serve: Callable[..., RunningServer]) -> None:
    write(tmp_path, "free")
    server = serve(
        tmp_path,
        "--default-max-batch-size=64",
        "--backend-config=onnxruntime,default-max-batch-size=16",
        "--backend-config=tensorflow,version=2",
    )

    assert config_of(server, "free")["max_batch_size"] == 16
    assert "got 17" in refusal(server, "free", 17)
    assert any("no effect here: --backend-config=tensorflow,version=2" in x for x in server.output)


def test_a_limit_of_none_leaves_models_as_their_files_are(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    write(tmp_path, "free")
    server = serve(tmp_path, "--backend-config=default-max-batch-size=0")

    ask(server, "free", 5000)
    assert config_of(server, "free")["max_batch_size"] == 0
