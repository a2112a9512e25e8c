"""A model may be sent with its load, and a load that fails says so in Triton's words: the same by
both protocols."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from heard import hear_triton
from serving import RunningServer, adder_bytes, write_adder
from tritonclient.utils import InferenceServerException

Serve = Callable[..., RunningServer]
CONFIG = json.dumps({"backend": "onnxruntime", "max_batch_size": 0})
BAD_CONFIGS = ("{this is not JSON", '{"backend": "no_such"}', '{"max_batch_size": "many"}')


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    write_adder(folder, "adder", 1)
    return folder


def clients(server: RunningServer) -> tuple[Any, Any]:
    return (
        httpclient.InferenceServerClient(server.http),
        grpcclient.InferenceServerClient(server.grpc),
    )


def add(client: Any, name: str) -> float:
    module = httpclient if isinstance(client, httpclient.InferenceServerClient) else grpcclient
    given = module.InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    return float(client.infer(name, [given]).as_numpy("y")[0])


def refusal(client: Any, name: str, **given: Any) -> InferenceServerException:
    with pytest.raises(InferenceServerException) as error:
        client.load_model(name, **given)
    hear_triton(error.value.status(), error.value.message())
    return error.value


@pytest.mark.rows("R26")
def test_a_sent_model_serves_until_the_repositorys_is_loaded(
    serve: Serve, repository: Path
) -> None:
    server = serve(
        repository,
        "--model-control-mode=explicit",
        "--load-model=adder",
        "--allow-model-upload",
        "--max-model-upload-size=20000",
    )
    for client in clients(server):
        client.load_model("adder", config=CONFIG, files={"file:1/model.onnx": adder_bytes(7)})
        assert add(client, "adder") == 7
        client.load_model("new one", config=CONFIG, files={"file:3/model.onnx": adder_bytes(9)})
        assert add(client, "new one") == 9
        # What fails leaves what serves, and the file that it serves from.
        files = {"file:1/model.onnx": b"no model"}
        assert "failed to load 'adder'" in str(refusal(client, "adder", config=CONFIG, files=files))
        assert add(client, "adder") == 7
        for path, size in (("file:1/../../x", 1), ("file:config.pbtxt", 1), ("file:1/big", 20001)):
            error = refusal(client, "adder", config=CONFIG, files={path: b"x" * size})
            assert "failed to load 'adder', failed to poll from model repository" in str(error)
        client.load_model("adder")
        assert add(client, "adder") == 1
        client.unload_model("new one")
        assert "failed to poll" in str(refusal(client, "new one"))
    assert server.stop() == 0


def test_without_the_flag_both_protocols_refuse_files_alike(serve: Serve, repository: Path) -> None:
    server = serve(repository, "--model-control-mode=explicit")
    files = {"file:1/model.onnx": adder_bytes(7)}
    texts = {
        refusal(client, "adder", config=CONFIG, files=files).message() for client in clients(server)
    }
    (text,) = texts
    assert text.startswith("failed to load 'adder': load parameter 'file:1/model.onnx' is not")
    assert "--allow-model-upload" in text


def test_every_load_that_fails_says_so(serve: Serve, repository: Path) -> None:
    """Triton's example clients look for these words."""
    broken = repository / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "model.onnx").write_bytes(b"no model")
    server = serve(repository, "--model-control-mode=explicit", "--load-model=adder")
    for client in clients(server):
        for name in ("broken", "missing"):
            assert refusal(client, name).message().startswith(f"failed to load '{name}'"), name
        for config in BAD_CONFIGS:
            message = refusal(client, "adder", config=config).message()
            assert message.startswith("failed to load 'adder'"), config
    server.wait_until(lambda: not server.is_ready(), "told of the failure")
    for client in clients(server):
        client.unload_model("broken")
        assert server.is_ready()
    assert server.stop() == 0
