"""Ensembles in a real server: they load after their steps, fall and come back with them."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from patience import patience
from serving import RunningServer, write_identity
from tritonclient.utils import InferenceServerException

CHAIN = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 16 ] } ]
ensemble_scheduling {
  step [
    { model_name: "one" model_version: -1
      input_map { key: "INPUT0" value: "X" } output_map { key: "OUTPUT0" value: "T" } },
    { model_name: "two" model_version: -1
      input_map { key: "INPUT0" value: "T" } output_map { key: "OUTPUT0" value: "Y" } }
  ]
}
"""


def write_ensemble(repository: Path, name: str, config: str) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)


def fill(repository: Path) -> None:
    for name in ("one", "two", "other"):
        write_identity(repository, name)
    # First in the alphabet: its load begins before those of its steps.
    write_ensemble(repository, "chain", CHAIN)
    outer = CHAIN.replace('"one"', '"chain"').replace('"INPUT0" value: "X"', '"X" value: "X"')
    write_ensemble(repository, "a_outer", outer.replace('"OUTPUT0" value: "T"', '"Y" value: "T"'))


def ask(server: RunningServer, model: str) -> np.ndarray:
    given = np.arange(32, dtype=np.float32).reshape(2, 16)
    tensor = triton.InferInput("X", [2, 16], "FP32")
    tensor.set_data_from_numpy(given)
    answer = triton.InferenceServerClient(server.grpc).infer(model, [tensor]).as_numpy("Y")
    assert answer is not None
    result: np.ndarray = answer
    return result


def post(server: RunningServer, path: str, body: Any = None) -> None:
    data = json.dumps(body or {}).encode()
    urllib.request.urlopen(f"http://{server.http}{path}", data=data, timeout=patience()).close()


def state(server: RunningServer, model: str) -> str:
    return server.index().get((model, "1"), {}).get("state", "")


def test_an_ensemble_is_served_over_both_protocols(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    fill(tmp_path)

    server = serve(tmp_path)

    assert ask(server, "chain")[1, 0] == 16
    assert ask(server, "a_outer")[1, 0] == 16
    body = {"inputs": [{"name": "X", "shape": [1, 16], "datatype": "FP32", "data": [1.5] * 16}]}
    data = json.dumps(body).encode()
    url = f"http://{server.http}/v2/models/chain/infer"
    with urllib.request.urlopen(url, data=data, timeout=patience()) as answer:
        assert json.load(answer)["outputs"][0]["data"] == [1.5] * 16
    metrics = server.metrics()
    assert 'nv_inference_request_success{model="chain",version="1"} 3' in metrics
    assert 'nv_inference_request_success{model="two",version="1"} 4' in metrics
    assert 'trivet_tensor_copied_bytes_total{kind="gather",model="two",version="1"} 0' in metrics


def test_an_ensemble_falls_with_a_step_and_comes_back_with_it(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    fill(tmp_path)
    server = serve(tmp_path)
    config = tmp_path / "two" / "config.pbtxt"
    moved = tmp_path.parent / "two-away"

    (tmp_path / "two").rename(moved)
    server.wait_until(lambda: state(server, "chain") == "UNAVAILABLE", "unavailable")

    entry = server.index()[("chain", "1")]
    assert entry["reason"] == "its step model 'two' is unloaded"
    assert state(server, "a_outer") == "UNAVAILABLE"
    with pytest.raises(InferenceServerException, match="no available versions"):
        ask(server, "chain")
    moved.rename(tmp_path / "two")
    server.wait_until(lambda: state(server, "a_outer") == "READY", "back")
    assert ask(server, "a_outer")[1, 0] == 16
    # A step that changes so that it does not fit any more takes the ensemble with it.
    config.write_text(config.read_text().replace("TYPE_FP32", "TYPE_INT32"))
    server.wait_until(lambda: state(server, "chain") == "UNAVAILABLE", "unavailable")
    reason = server.index()[("chain", "1")]["reason"]
    assert (
        "step 1 (model 'two'): input 'INPUT0' is INT32, but ensemble tensor 'T' is FP32" in reason
    )


@pytest.mark.more_of("R22")
def test_loading_an_ensemble_loads_its_steps_and_unloading_can_take_them_along(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    fill(tmp_path)
    server = serve(tmp_path, "--model-control-mode=explicit", "--load-model=one", wait=True)

    post(server, "/v2/repository/models/a_outer/load")
    assert ask(server, "a_outer")[1, 0] == 16
    states = {name: state(server, name) for name in ("one", "two", "chain", "a_outer", "other")}
    assert states == dict.fromkeys(("one", "two", "chain", "a_outer"), "READY") | {"other": ""}

    body = {"parameters": {"unload_dependents": True}}
    post(server, "/v2/repository/models/a_outer/unload", body)

    server.wait_until(lambda: state(server, "two") == "UNAVAILABLE", "two unloaded")
    assert state(server, "chain") == "UNAVAILABLE"
    # It was asked for by name.
    assert state(server, "one") == "READY"


def test_ensembles_in_a_circle_fail_to_load_and_hang_nothing(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    write_identity(tmp_path, "one")
    for name, other in (("p", "q"), ("q", "p")):
        text = CHAIN.replace('"two"', f'"{other}"').replace('"INPUT0" value: "T"', '"X" value: "T"')
        write_ensemble(tmp_path, name, text.replace('"OUTPUT0" value: "Y"', '"Y" value: "Y"'))
    server = serve(tmp_path, "--exit-on-error=false", wait=False)

    server.wait_until(lambda: server.http_port != 0 and state(server, "one") == "READY", "ready")
    server.wait_until(
        lambda: all(
            any(n == name and e["state"] == "UNAVAILABLE" for (n, _), e in server.index().items())
            for name in "pq"
        ),
        "both refused",
    )

    reasons = [e["reason"] for (name, _), e in server.index().items() if name in "pq"]
    assert any("the ensembles form a cycle" in reason for reason in reasons)


def best_class(server: RunningServer, model: str, output: str) -> str:
    tensor = triton.InferInput("INPUT0" if output == "OUTPUT0" else "X", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.eye(16, dtype=np.float32)[[5]])
    wanted = triton.InferRequestedOutput(output, class_count=1)
    with triton.InferenceServerClient(server.grpc) as client:
        answer = client.infer(model, [tensor], outputs=[wanted]).as_numpy(output)
    text: str = answer.ravel()[0].decode()
    return text


def test_an_ensemble_s_own_labels_go_before_those_of_the_step_that_makes_the_output(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    for name in ("one", "two"):
        folder = write_identity(tmp_path, name)
        config = (folder / "config.pbtxt").read_text()
        labelled = config.replace('"OUTPUT0"', '"OUTPUT0" label_filename: "labels.txt"')
        (folder / "config.pbtxt").write_text(labelled)
        (folder / "labels.txt").write_text("\n".join(f"{name} {i}" for i in range(16)))
    write_ensemble(tmp_path, "plain", CHAIN)
    write_ensemble(tmp_path, "own", CHAIN.replace('"Y" data', '"Y" label_filename: "own.txt" data'))
    (tmp_path / "own" / "own.txt").write_text("\n".join(f"own {i}" for i in range(16)))
    server = serve(tmp_path)
    assert best_class(server, "two", "OUTPUT0") == "1.000000:5:two 5"
    assert best_class(server, "plain", "Y") == "1.000000:5:two 5"
    assert best_class(server, "own", "Y") == "1.000000:5:own 5"
