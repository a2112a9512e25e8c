"""The trace extension and Triton's trace files, with tritonclient over both protocols."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from serving import RunningServer, write_identity
from trace_site import write_models
from tritonclient.utils import InferenceServerException

MODULES = {"http": httpclient, "grpc": grpcclient}
Serve = Callable[..., RunningServer]
AT_START = {
    "trace_level": ["OFF"],
    "trace_rate": "1",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}
CLEARED = dict.fromkeys(("trace_level", "trace_rate", "trace_count", "log_frequency"))
STAMPS = [
    "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START",
    "COMPUTE_END", "REQUEST_END",
]  # fmt: skip


@pytest.fixture(scope="module")
def trace_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces") / "trace.json"


@pytest.fixture(scope="module")
def server(
    serve: Serve, tmp_path_factory: pytest.TempPathFactory, trace_file: Path
) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    write_identity(repository, "m")
    write_identity(repository, "other")
    return serve(repository, f"--trace-config=triton,file={trace_file}", "--trace-config=rate=1")


@pytest.fixture(params=MODULES)
def client(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Any]:
    address = server.http if request.param == "http" else server.grpc
    with closing(MODULES[request.param].InferenceServerClient(address)) as made:
        yield made
        made.update_trace_settings(settings=CLEARED)
        made.update_trace_settings(model_name="m", settings=CLEARED)


def plain(settings: Any) -> dict[str, Any]:
    """What a client has read, as JSON has it."""
    if isinstance(settings, dict):
        return settings
    read = {name: list(value.value) for name, value in settings.settings.items()}
    return {name: v if name == "trace_level" else v[0] for name, v in read.items()}


def infer(client: Any, model: str, *, name: str = "INPUT0", value: float = 1.0) -> None:
    module = httpclient if "http" in type(client).__module__ else grpcclient
    tensor = module.InferInput(name, [1, 16], "FP32")
    tensor.set_data_from_numpy(np.full((1, 16), value, np.float32))
    client.infer(model, [tensor], request_id="r")


def test_settings_are_those_of_the_start(client: Any, trace_file: Path) -> None:
    assert plain(client.get_trace_settings()) == {**AT_START, "trace_file": str(trace_file)}


def test_a_model_has_its_own_until_they_are_given_back(client: Any) -> None:
    changed = client.update_trace_settings(settings={"trace_rate": "5", "trace_count": "9"})
    assert plain(changed)["trace_rate"] == "5"
    own = client.update_trace_settings(
        model_name="m", settings={"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "2"}
    )
    assert plain(own)["trace_level"] == ["TIMESTAMPS", "TENSORS"]
    client.update_trace_settings(settings={"trace_rate": "7", "trace_count": "3"})
    mine, others = (plain(client.get_trace_settings(model_name=m)) for m in ("m", "other"))
    assert (mine["trace_rate"], mine["trace_count"]) == ("2", "3")
    assert (others["trace_rate"], others["trace_level"]) == ("7", ["OFF"])
    client.update_trace_settings(model_name="m", settings={"trace_rate": None})
    assert plain(client.get_trace_settings(model_name="m"))["trace_rate"] == "7"
    client.update_trace_settings(settings={"trace_rate": None})
    assert plain(client.get_trace_settings(model_name="m"))["trace_rate"] == "1"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"trace_file": "/tmp/x"}, "trace file location can not be updated through network"),
        ({"trace_mode": "opentelemetry"}, "trace mode can not be updated through network"),
        ({"trace_rates": "1"}, "unknown trace setting 'trace_rates'; known are trace_level"),
        ({"trace_level": ["LOUD"]}, "unknown trace level 'LOUD'; known are OFF"),
        ({"trace_rate": "-1"}, "'trace_rate' must be a whole number from 0 to"),
    ],
)
def test_what_cannot_be_set_is_named_and_changes_nothing(
    client: Any, settings: dict[str, Any], text: str
) -> None:
    before = plain(client.get_trace_settings())
    with pytest.raises(InferenceServerException, match=text):
        client.update_trace_settings(settings={"trace_count": "1", **settings})
    assert plain(client.get_trace_settings()) == before


def test_settings_of_a_model_that_is_not_there_are_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'missing'"):
        client.get_trace_settings(model_name="missing")


def test_a_version_has_no_settings(server: RunningServer) -> None:
    assert server.get("/v2/models/m/trace/setting")[0] == 200
    assert server.get("/v2/models/m/versions/1/trace/setting")[0] == 404


def test_only_as_many_requests_are_traced_as_the_count_says(
    client: Any, server: RunningServer, trace_file: Path
) -> None:
    def num_traces() -> int:
        return trace_file.read_text().count('"model_name"') if trace_file.exists() else 0

    before = num_traces()
    client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"], "trace_count": "2"})
    for _ in range(5):
        infer(client, "m")
    server.wait_until(lambda: num_traces() >= before + 2, "wrote two traces")
    infer(client, "m")
    assert plain(client.get_trace_settings())["trace_count"] == "0"
    assert num_traces() == before + 2


# -- the file ------------------------------------------------------------------------------------


def entries(path: Path) -> dict[int, list[dict[str, Any]]]:
    """The objects of a file by trace id."""
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in json.loads(path.read_text()):
        found.setdefault(entry["id"], []).append(entry)
    return found


def names(entry: dict[str, Any]) -> list[str]:
    return [stamp["name"] for stamp in entry["timestamps"]]


def test_a_file_has_models_stamps_and_tensors_and_steps_below_their_ensemble(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    write_models(tmp_path / "models")
    path = tmp_path / "trace.json"
    options = (f"triton,file={path}", "level=TIMESTAMPS", "level=TENSORS", "rate=1")
    server = serve(tmp_path / "models", *(f"--trace-config={each}" for each in options))
    with closing(httpclient.InferenceServerClient(server.http)) as client:
        infer(client, "both", name="IN", value=2.5)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        infer(client, "first")
    assert server.stop() == 0

    ensemble, first, second, alone = entries(path).values()
    about = {"model_name": "both", "model_version": 1, "request_id": "r"}
    assert ensemble[0] == {"id": ensemble[0]["id"], **about}
    for step, name in ((first, "first"), (second, "second")):
        assert step[0]["model_name"] == name
        assert step[0]["parent_id"] == ensemble[0]["id"]
        assert names(step[1]) == STAMPS
        tensors = {entry["activity"]: entry["tensor"] for entry in step[2:]}
        data = ",".join(["2.5"] * 16)
        assert tensors["TENSOR_QUEUE_INPUT"] == {
            "name": "INPUT0", "data": data, "shape": "1,16", "dtype": "FP32",
        }  # fmt: skip
        assert tensors["TENSOR_BACKEND_OUTPUT"]["data"] == data
    assert {"HTTP_RECV_START", "HTTP_RECV_END", "HTTP_SEND_START"} <= set(names(ensemble[1]))
    assert {"GRPC_WAITREAD_START", "GRPC_SEND_START", *STAMPS} <= set(names(alone[1]))
    times = [stamp["ns"] for stamp in alone[1]["timestamps"]]
    assert times == sorted(times)


def test_a_file_ends_after_so_many_traces_and_another_begins(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write_identity(tmp_path / "models", "m")
    path = tmp_path / "trace.json"
    options = (f"triton,file={path}", "level=TIMESTAMPS", "rate=1", "triton,log-frequency=2")
    server = serve(tmp_path / "models", *(f"--trace-config={each}" for each in options))
    with closing(httpclient.InferenceServerClient(server.http)) as client:
        for _ in range(5):
            infer(client, "m")
    assert server.stop() == 0
    files = [path.with_name(f"trace.json.{number}") for number in range(3)]
    assert [len(entries(each)) for each in files] == [2, 2, 1]
    assert not path.exists()
