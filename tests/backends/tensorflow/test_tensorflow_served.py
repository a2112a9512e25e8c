"""A server with TensorFlow models: each in a process of its own, the server without the library."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from serving import RunningServer, start_server
from tensorflow_results import Site, array_of

FLAGS = ("--exit-on-error=false", "--strict-readiness=false")


@pytest.fixture(scope="module")
def server(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serves a good model beside one with an operation that TensorFlow does not have."""
    repository = tmp_path_factory.mktemp("repository")
    for name in ("exported", "foreign_operation"):
        (repository / name).symlink_to(site.folder / name)
    server = start_server(repository, *FLAGS)
    yield server
    server.end()


def processes_with_tensorflow(server: RunningServer) -> list[bool]:
    """Of the server and of each that it has started."""
    own = psutil.Process(server.process.pid)
    return [
        any("/tensorflow/" in each.path for each in process.memory_maps())
        for process in (own, *own.children())
    ]


def test_a_client_gets_what_keras_predicts(site: Site, server: RunningServer) -> None:
    rows = array_of(site.results["lite"]["inputs"]).astype(np.float32)
    given = triton.InferInput("x", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows)

    with triton.InferenceServerClient(server.http) as client:
        answer = client.infer("exported", [given])

    expected = site.arrays("exported", "expected")["output_0"]
    np.testing.assert_allclose(answer.as_numpy("output_0"), expected, rtol=1e-5)


def test_only_the_models_process_has_tensorflow(server: RunningServer) -> None:
    assert processes_with_tensorflow(server) == [False, True]


def test_a_model_that_does_not_load_leaves_the_server_ready(server: RunningServer) -> None:
    entry = server.index()["foreign_operation", "1"]

    assert server.is_ready()
    assert entry["state"] == "UNAVAILABLE"
    assert "op_library_filename" in entry["reason"]


@pytest.mark.slow
def test_keras_files_are_served_from_processes(site: Site, tmp_path: Path) -> None:
    for name in ("zipped", "lambda"):
        (tmp_path / name).symlink_to(site.folder / name)
    server = start_server(tmp_path, *FLAGS)
    try:
        rows = site.results["lite"]["inputs"]
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": rows["shape"]}]}
        body["inputs"][0]["data"] = rows["values"]
        answer = server.post("/v2/models/zipped/infer", body)
        refused = server.index()["lambda", "1"]["reason"]
        found = processes_with_tensorflow(server)
    finally:
        server.end()

    expected = site.arrays("zipped", "expected")["output_0"].ravel()
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected, rtol=1e-4)
    assert "never run here" in refused
    assert found == [False, True]
