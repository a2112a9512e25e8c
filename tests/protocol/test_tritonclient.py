"""Unmodified tritonclient programs against a running server, over both protocols."""

import queue
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from patience import fires_after, patience
from serving import RunningServer, write_identity
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

MODULES = {"http": httpclient, "grpc": grpcclient}
DATATYPES = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 2**16 - 1]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -2]], np.float16),
    "FP32": np.array([[1e-30, 3e38]], np.float32),
    "FP64": np.array([[1e-300, 3e300]]),
    "BYTES": np.array([["grüße\0".encode(), b""]], dtype=object),
}
REPEAT = """
backend: "repeat"
model_transaction_policy { decoupled: true }
input [
  { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] },
  { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] }
]
output [
  { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
]
"""


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    for datatype in DATATYPES:
        word = "STRING" if datatype == "BYTES" else datatype
        write_identity(repository, f"id_{datatype}", datatype=f"TYPE_{word}", dims="-1")
    write_identity(
        repository,
        "slow",
        more='instance_group { count: 1 kind: KIND_CPU } parameters { key: "execute_delay_ms" '
        'value { string_value: "300" } }',
    )
    labelled = write_identity(repository, "labelled", dims="3")
    config = labelled / "config.pbtxt"
    config.write_text(
        config.read_text().replace(
            'name: "OUTPUT0"', 'name: "OUTPUT0" label_filename: "labels.txt"'
        )
    )
    (labelled / "labels.txt").write_text("cat\ndog\nowl\n")
    (repository / "repeat" / "1").mkdir(parents=True)
    (repository / "repeat" / "config.pbtxt").write_text(REPEAT)
    return serve(repository, "--allow-client-shm=true")


@pytest.fixture(params=MODULES)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def client(server: RunningServer, protocol: str) -> Iterator[Any]:
    with MODULES[protocol].InferenceServerClient(getattr(server, protocol)) as made:
        yield made


def tensor(protocol: str, name: str, values: np.ndarray, datatype: str) -> Any:
    made = MODULES[protocol].InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def test_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("id_FP32")
    assert client.is_model_ready("id_FP32", "1")


def test_a_model_that_is_not_there_is_not_ready(client: Any) -> None:
    assert client.is_model_ready("nothing") is False
    assert client.is_model_ready("id_FP32", "7") is False


def test_metadata_names_versions_and_shapes(client: Any, protocol: str) -> None:
    arguments = {"as_json": True} if protocol == "grpc" else {}
    metadata = client.get_model_metadata("id_FP32", **arguments)
    assert metadata["name"] == "id_FP32"
    assert metadata["versions"] == ["1"]
    assert [int(dim) for dim in metadata["inputs"][0]["shape"]] == [-1, -1]
    server_metadata = client.get_server_metadata(**arguments)
    assert server_metadata["name"] == "triton"
    assert "binary_tensor_data" in server_metadata["extensions"]


def test_config_is_complete(client: Any, protocol: str) -> None:
    config = client.get_model_config("id_FP32", **({"as_json": True} if protocol == "grpc" else {}))
    config = config.get("config", config)
    assert config["max_batch_size"] == 8
    assert config["version_policy"]["latest"]["num_versions"] == 1


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_comes_back_as_it_went(client: Any, protocol: str, datatype: str) -> None:
    values = DATATYPES[datatype]
    result = client.infer(f"id_{datatype}", [tensor(protocol, "INPUT0", values, datatype)])
    assert result.as_numpy("OUTPUT0").tolist() == values.tolist()
    assert result.as_numpy("OUTPUT0").shape == values.shape


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"FP16"}))
def test_json_carries_every_datatype_but_the_half_ones(
    server: RunningServer, datatype: str
) -> None:
    values = DATATYPES[datatype]
    if datatype in ("FP32", "FP64"):
        values = np.array([[0.5, -2.25]], values.dtype)
    given = httpclient.InferInput("INPUT0", list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=False)
    wanted = [httpclient.InferRequestedOutput("OUTPUT0", binary_data=False)]
    with httpclient.InferenceServerClient(server.http) as client:
        result = client.infer(f"id_{datatype}", [given], outputs=wanted)
    returned = result.as_numpy("OUTPUT0").tolist()
    if datatype == "BYTES":
        returned = [[value.encode() if isinstance(value, str) else value for value in returned[0]]]
    assert returned == values.tolist()


def test_an_empty_tensor_keeps_its_shape(client: Any, protocol: str) -> None:
    values = np.zeros((1, 0), np.float32)
    result = client.infer("id_FP32", [tensor(protocol, "INPUT0", values, "FP32")])
    assert result.as_numpy("OUTPUT0").shape == (1, 0)


def test_request_id_comes_back(client: Any, protocol: str) -> None:
    values = np.zeros((1, 2), np.float32)
    result = client.infer("id_FP32", [tensor(protocol, "INPUT0", values, "FP32")], request_id="r7")
    response = result.get_response()
    assert (response["id"] if protocol == "http" else response.id) == "r7"


def test_classification_gives_labels(client: Any, protocol: str) -> None:
    values = np.array([[0.5, 3.25, -1]], np.float32)
    wanted = [MODULES[protocol].InferRequestedOutput("OUTPUT0", class_count=2)]
    given = [tensor(protocol, "INPUT0", values, "FP32")]
    result = client.infer("labelled", given, outputs=wanted)
    assert result.as_numpy("OUTPUT0").tolist() == [[b"3.250000:1:dog", b"0.500000:0:cat"]]


@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nothing", "", "Request for unknown model: 'nothing' is not found"),
        ("id_FP32", "9", "Request for unknown model: 'id_FP32' version 9 is not found"),
        ("slow", "", "unexpected shape for input 'INPUT0' for model 'slow'. Expected [-1,16]"),
    ],
)
def test_errors_are_triton_s(
    client: Any, protocol: str, model: str, version: str, text: str
) -> None:
    values = np.zeros((1, 2), np.float32)
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, [tensor(protocol, "INPUT0", values, "FP32")], model_version=version)
    assert text in refused.value.message()


def test_statistics_count_requests(client: Any, protocol: str) -> None:
    values = np.zeros((3, 2), np.float32)
    arguments = {"as_json": True} if protocol == "grpc" else {}

    def counts() -> tuple[int, int]:
        (stats,) = client.get_inference_statistics("id_FP32", **arguments)["model_stats"]
        success = stats["inference_stats"]["success"].get("count", 0)
        return int(stats.get("inference_count", 0)), int(success)

    before = counts()
    client.infer("id_FP32", [tensor(protocol, "INPUT0", values, "FP32")])
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (3, 1)


def test_the_index_lists_every_model(client: Any, protocol: str) -> None:
    arguments = {"as_json": True} if protocol == "grpc" else {}
    index = client.get_model_repository_index(**arguments)
    entries = index["models"] if protocol == "grpc" else index
    assert {"name": "slow", "version": "1", "state": "READY"}.items() <= next(
        entry for entry in entries if entry["name"] == "slow"
    ).items()


def test_load_needs_explicit_control(client: Any) -> None:
    with pytest.raises(
        InferenceServerException, match="explicit model load / unload is not allowed"
    ):
        client.load_model("slow")


def test_system_shared_memory_in_and_out(client: Any, protocol: str) -> None:
    values = np.arange(4, dtype=np.float32).reshape(1, 4)
    region = shm.create_shared_memory_region("both", f"/trivet_{protocol}", 32)
    try:
        shm.set_shared_memory_region(region, [values])
        client.register_system_shared_memory("both", f"/trivet_{protocol}", 32)
        given = MODULES[protocol].InferInput("INPUT0", [1, 4], "FP32")
        given.set_shared_memory("both", 16)
        wanted = MODULES[protocol].InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory("both", 16, 16)
        result = client.infer("id_FP32", [given], outputs=[wanted])
        output = result.get_output("OUTPUT0")
        shape = output["shape"] if protocol == "http" else list(output.shape)
        assert shape == [1, 4]
        written = shm.get_contents_as_numpy(region, np.float32, [1, 4], offset=16)
        assert written.tolist() == values.tolist()
        client.unregister_system_shared_memory("both")
        with pytest.raises(InferenceServerException, match="Unable to find shared memory region"):
            client.infer("id_FP32", [given])
    finally:
        shm.destroy_shared_memory_region(region)


def test_async_calls_all_come_back(client: Any, protocol: str) -> None:
    values = [np.full((1, 2), n, np.float32) for n in range(20)]
    given = [[tensor(protocol, "INPUT0", value, "FP32")] for value in values]
    if protocol == "http":
        handles = [client.async_infer("id_FP32", each) for each in given]
        results = [handle.get_result() for handle in handles]
    else:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        for each in given:
            client.async_infer("id_FP32", each, lambda result, error: answers.put((result, error)))
        results = [answers.get(timeout=patience())[0] for _ in given]
    returned = sorted(result.as_numpy("OUTPUT0")[0, 0] for result in results)
    assert returned == list(range(20))


class Streamed:
    """A gRPC stream and the answers that came in it."""

    def __init__(self, address: str) -> None:
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client = grpcclient.InferenceServerClient(address)
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def next(self) -> tuple[Any, Any]:
        return self.answers.get(timeout=patience())


@pytest.fixture
def stream(server: RunningServer) -> Iterator[Streamed]:
    streamed = Streamed(server.grpc)
    yield streamed
    streamed.client.stop_stream()
    streamed.client.close()


def repeat_inputs(count: int) -> list[Any]:
    return [
        tensor("grpc", "IN", np.arange(count, dtype=np.int32), "INT32"),
        tensor("grpc", "DELAY", np.zeros(count, np.uint32), "UINT32"),
        tensor("grpc", "WAIT", np.zeros(1, np.uint32), "UINT32"),
    ]


def test_a_stream_carries_ordinary_requests_in_order(stream: Streamed) -> None:
    for number in range(10):
        model = "slow" if number == 0 else "id_FP32"
        values = np.full((1, 16), number, np.float32)
        stream.client.async_stream_infer(model, [tensor("grpc", "INPUT0", values, "FP32")])
    returned = [stream.next()[0].as_numpy("OUTPUT0")[0, 0] for _ in range(10)]
    assert returned == list(range(10))


def test_a_decoupled_model_streams_its_responses(stream: Streamed) -> None:
    stream.client.async_stream_infer("repeat", repeat_inputs(4), request_id="d")
    returned = [stream.next()[0].as_numpy("OUT")[0] for _ in range(4)]
    assert returned == [0, 1, 2, 3]


def test_the_empty_final_response_comes_only_when_asked_for(stream: Streamed) -> None:
    stream.client.async_stream_infer(
        "repeat", repeat_inputs(0), request_id="d", enable_empty_final_response=True
    )
    response = stream.next()[0].get_response()
    assert response.parameters["triton_final_response"].bool_param is True
    assert response.id == "d"
    assert len(response.outputs) == 0


def test_an_error_in_a_stream_leaves_it_open(stream: Streamed) -> None:
    values = np.zeros((1, 2), np.float32)
    stream.client.async_stream_infer("nothing", [tensor("grpc", "INPUT0", values, "FP32")])
    _, error = stream.next()
    assert "'nothing' is not found" in error.message()
    stream.client.async_stream_infer("id_FP32", [tensor("grpc", "INPUT0", values, "FP32")])
    assert stream.next()[0] is not None


def test_decoupled_models_need_a_stream(server: RunningServer) -> None:
    with (
        grpcclient.InferenceServerClient(server.grpc) as client,
        pytest.raises(InferenceServerException, match="doesn't support models with decoupled"),
    ):
        client.infer("repeat", repeat_inputs(1))


def test_a_client_s_time_out_ends_the_call(server: RunningServer) -> None:
    values = np.zeros((1, 16), np.float32)
    with (
        grpcclient.InferenceServerClient(server.grpc) as client,
        pytest.raises(InferenceServerException, match="Deadline Exceeded"),
    ):
        client.infer(
            "slow", [tensor("grpc", "INPUT0", values, "FP32")], client_timeout=fires_after(0.05)
        )


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_grpc_requests_are_read(server: RunningServer, algorithm: str) -> None:
    values = np.zeros((1, 5000), np.float32)
    given = [tensor("grpc", "INPUT0", values, "FP32")]
    with grpcclient.InferenceServerClient(server.grpc) as client:
        result = client.infer("id_FP32", given, compression_algorithm=algorithm)
    assert result.as_numpy("OUTPUT0").shape == (1, 5000)


def test_metrics_follow_the_requests(server: RunningServer) -> None:
    values = np.zeros((2, 2), np.float32)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.infer("id_INT8", [tensor("grpc", "INPUT0", values.astype(np.int8), "INT8")])
    text = server.metrics()
    assert 'nv_inference_count{model="id_INT8",version="1"}' in text
    assert 'nv_inference_request_failure{model="id_INT8",reason="CANCELED",version="1"} 0' in text
