"""The unmodified tritonclient against the HTTP front room."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import tritonclient.utils.shared_memory as triton_shm
from http_site import Site
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from trivet.backends.api import DataType

# gevent, under the client, warns of its own use of threads.
pytestmark = pytest.mark.filterwarnings("ignore")
NUMPY_TYPES = [d for d in DataType if d not in (DataType.BYTES, DataType.BF16)]


class Client:
    """The blocking client in a thread of its own, beside the server's loop: gevent ties a client to
    the thread that made it."""

    def __init__(self, url: str) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._client = self._thread.submit(triton.InferenceServerClient, url).result()

    async def call(self, name: str, *args: Any, **named: Any) -> Any:
        method = partial(getattr(self._client, name), *args, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, method)

    async def close(self) -> None:
        await self.call("close")
        self._thread.shutdown()


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    opened = Client(f"127.0.0.1:{site.port}")
    yield opened
    await opened.close()


def infer_input(values: np.ndarray, name: str = "INPUT0", *, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values, binary_data=binary)
    return made


@pytest.mark.parametrize("datatype", NUMPY_TYPES, ids=lambda d: d.value)
async def test_every_datatype_comes_back_binary(client: Client, datatype: DataType) -> None:
    values = np.array([0, 1, 1, 0]).astype(datatype.dtype)
    result = await client.call("infer", f"ident_{datatype.value.lower()}", [infer_input(values)])
    assert result.as_numpy("OUTPUT0").dtype == values.dtype
    assert np.array_equal(result.as_numpy("OUTPUT0"), values)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
async def test_strings_come_back_either_way(
    client: Client, *, binary_in: bool, binary_out: bool
) -> None:
    values = np.array([b"a", "\u00e9".encode(), b"", b"a\x00b"], dtype=object)
    wanted = triton.InferRequestedOutput("OUTPUT0", binary_data=binary_out)
    result = await client.call(
        "infer", "ident_str", [infer_input(values, binary=binary_in)], outputs=[wanted]
    )
    got = [v if isinstance(v, bytes) else v.encode() for v in result.as_numpy("OUTPUT0")]
    assert got == values.tolist()


async def test_mixed_binary_and_json_inputs_and_outputs(
    client: Client,
) -> None:
    first = np.arange(32, dtype=np.float32).reshape(2, 16)
    second = first * 0.1
    result = await client.call(
        "infer",
        "simple",
        [infer_input(first, binary=False), infer_input(second, "INPUT1")],
        outputs=[
            triton.InferRequestedOutput("OUTPUT1", binary_data=False),
            triton.InferRequestedOutput("OUTPUT0", binary_data=True),
        ],
        request_id="my id",
    )
    assert np.array_equal(result.as_numpy("OUTPUT0"), first)
    assert np.array_equal(result.as_numpy("OUTPUT1"), second)
    assert result.get_response()["id"] == "my id"
    assert result.get_response()["model_version"] == "1"
    assert result.get_output("OUTPUT1")["shape"] == [2, 16]


async def test_empty_tensors_keep_their_shape(client: Client) -> None:
    for binary in (True, False):
        values = np.empty((3, 0), dtype=np.float32)
        result = await client.call("infer", "ident_2d", [infer_input(values, binary=binary)])
        assert result.as_numpy("OUTPUT0").shape == (3, 0)


async def test_parameters_reach_the_model_and_come_back(client: Client, site: Site) -> None:
    parameters = {"text": "t", "count": 3, "yes": True, "ratio": 0.5}
    result = await client.call(
        "infer",
        "ident",
        [infer_input(np.ones(1, np.float32))],
        parameters=parameters,
        priority=2,
        timeout=1000,
        sequence_id=7,
        sequence_start=True,
    )
    assert result.get_response()["parameters"] == parameters
    (request,) = site.core.requests
    assert (request.priority, request.timeout_us, request.sequence_id) == (2, 1000, 7)
    assert (request.sequence_start, request.sequence_end) == (True, False)


async def test_classes_come_instead_of_values(client: Client) -> None:
    values = np.zeros((1, 16), dtype=np.float32)
    values[0, [1, 3]] = 9.5, 2.25
    result = await client.call(
        "infer",
        "simple",
        [infer_input(values), infer_input(values, "INPUT1")],
        outputs=[triton.InferRequestedOutput("OUTPUT0", class_count=2)],
    )
    assert result.as_numpy("OUTPUT0").tolist() == [[b"9.500000:1:one", b"2.250000:3"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_are_served(client: Client, algorithm: str) -> None:
    values = np.arange(50_000, dtype=np.float32)
    result = await client.call(
        "infer",
        "ident",
        [infer_input(values)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(result.as_numpy("OUTPUT0"), values)


async def test_tensors_travel_through_shared_memory(client: Client, site: Site) -> None:
    key = f"/trivet-test-{uuid.uuid4().hex}"
    handle = triton_shm.create_shared_memory_region("region", key, 192)
    try:
        values = np.arange(16, dtype=np.float32)
        triton_shm.set_shared_memory_region(handle, [values], offset=64)
        await client.call("register_system_shared_memory", "region", key, 128, offset=64)
        status = await client.call("get_system_shared_memory_status")
        assert status == [{"name": "region", "key": key, "offset": 64, "byte_size": 128}]
        given = triton.InferInput("INPUT0", [16], "FP32")
        given.set_shared_memory("region", 64)
        wanted = triton.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory("region", 64, offset=64)
        result = await client.call("infer", "ident", [given], outputs=[wanted])
        # The C++ client takes any `parameters` to hold `binary_data_size`.
        assert result.get_output("OUTPUT0").keys() == {"name", "datatype", "shape"}
        written = triton_shm.get_contents_as_numpy(handle, np.float32, [16], offset=128)
        assert np.array_equal(written, values)
        await client.call("unregister_system_shared_memory", "region")
        assert await client.call("get_system_shared_memory_status") == []
        with pytest.raises(InferenceServerException, match="Unable to find system shared memory"):
            await client.call("get_system_shared_memory_status", "region")
    finally:
        triton_shm.destroy_shared_memory_region(handle)


async def test_cuda_shared_memory_without_a_gpu_says_what_is_missing(client: Client) -> None:
    assert await client.call("get_cuda_shared_memory_status") == []
    await client.call("unregister_cuda_shared_memory")
    handle = base64.b64encode(bytes(64))
    with pytest.raises(InferenceServerException, match="CUDA shared memory region 'r'") as caught:
        await client.call("register_cuda_shared_memory", "r", handle, 0, 64)
    assert caught.value.status() == "400"


async def test_health(client: Client, site: Site) -> None:
    assert await client.call("is_server_live")
    assert await client.call("is_server_ready")
    assert await client.call("is_model_ready", "simple")
    assert await client.call("is_model_ready", "simple", "1")
    assert not await client.call("is_model_ready", "x")
    site.core.ready = False
    assert not await client.call("is_server_ready")
    assert await client.call("is_server_live")


async def test_metadata_config_statistics(client: Client) -> None:
    assert await client.call("get_server_metadata") == {
        "name": "trivet",
        "version": "1.2",
        "extensions": ["a", "b"],
    }
    metadata = await client.call("get_model_metadata", "simple", "1")
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "FP32", "shape": [-1, 16]}
    config = await client.call("get_model_config", "simple")
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [16]
    statistics = await client.call("get_inference_statistics", "simple")
    assert statistics["model_stats"][0]["inference_count"] == 3
    assert len((await client.call("get_inference_statistics"))["model_stats"]) > 1


async def test_repository(client: Client, site: Site) -> None:
    assert await client.call("get_model_repository_index") == [
        {"name": "simple", "version": "1", "state": "READY", "reason": ""},
        {"name": "never"},
        {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "why"},
    ]
    config = json.dumps({"max_batch_size": 4})
    await client.call("load_model", "m")
    await client.call("load_model", "m", config=config)
    await client.call("unload_model", "m")
    await client.call("unload_model", "m", unload_dependents=True)
    assert site.core.control == [
        ("load", "m", None),
        ("load", "m", config),
        ("unload", "m", False),
        ("unload", "m", True),
    ]
    await client.call("load_model", "m", config=config, files={"file:1/model.py": b"x"})
    assert site.core.control[-1] == ("load", "m", config, {"1/model.py": b"x"})


async def test_errors_arrive_as_text_and_status(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'x'") as caught:
        await client.call("infer", "x", [infer_input(np.ones(1, np.float32))])
    assert caught.value.status() == "400"


async def test_the_asyncio_client_is_served_too(site: Site) -> None:
    values = np.arange(200_000, dtype=np.float32)
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{site.port}") as client:
        assert await client.is_server_live()
        results = await asyncio.gather(
            *(client.infer("ident", [infer_input(values + n)]) for n in range(4))
        )
    for number, result in enumerate(results):
        assert np.array_equal(result.as_numpy("OUTPUT0"), values + number)


async def test_a_raw_body_is_understood(client: Client, site: Site) -> None:
    values = np.arange(5, dtype=np.float32)
    headers = {"Inference-Header-Content-Length": "0"}
    for model, body in (("ident", values.tobytes()), ("one_str", b"text")):
        async with site.session.post(
            f"/v2/models/{model}/infer", data=body, headers=headers
        ) as answer:
            length = int(answer.headers["Inference-Header-Content-Length"])
            tail = (await answer.read())[length:]
            assert tail == (body if model == "ident" else b"\4\0\0\0text")
