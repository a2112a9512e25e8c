"""CUDA shared memory, with Triton's own clients: another process's memory is the twin's."""

import base64
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from device_twin import TwinDevice
from http_site import FakeCore, Site, open_site
from patience import patience
from tritonclient.utils import InferenceServerException

from trivet.backends.api import (
    AlreadyExists,
    DataType,
    DeviceTensor,
    InvalidRequest,
    LoadFailed,
    Residence,
    Unsupported,
)
from trivet.server.core import Core
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.service import Service
from trivet.server.shared_memory.cuda import CudaRegions
from trivet.server.shared_memory.system import SharedMemory

pytestmark = pytest.mark.filterwarnings("ignore")  # the clients warn of their own event loops
HANDLE = b"handle".ljust(64, b"\0")


@pytest.fixture
def device() -> TwinDevice:
    twin = TwinDevice()
    twin.shared[HANDLE] = np.zeros(256, np.uint8)
    return twin


@pytest.fixture
def core(device: TwinDevice) -> FakeCore:
    made = FakeCore()
    made.shared_memory = SharedMemory(enabled=True, cuda=CudaRegions(lambda _: device))
    return made


@pytest.fixture
async def clients(core: FakeCore) -> AsyncIterator[dict[str, Any]]:
    """Triton's, one of each protocol, on the same core."""
    site: Site = await open_site(core)
    rows = Service(cast(Core, core)).rows()
    transport = Http2Transport(rows, host="127.0.0.1", port=0, options=Http2Options(1 << 20))
    port = await transport.start()
    http = triton_aio.InferenceServerClient(f"127.0.0.1:{site.port}")
    grpc = triton_grpc_aio.InferenceServerClient(f"127.0.0.1:{port}")
    yield {"http": http, "grpc": grpc}
    await http.close()
    await grpc.close()
    await transport.drain(0)
    await site.close()


def memory(device: TwinDevice) -> np.ndarray:
    return device.shared[HANDLE].view(np.float32)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_tensors_come_and_go_through_a_region(
    protocol: str, clients: dict[str, Any], core: FakeCore, device: TwinDevice
) -> None:
    client = clients[protocol]
    kind: Any = triton if protocol == "http" else triton_grpc
    encoded = base64.b64encode(HANDLE)
    await client.register_cuda_shared_memory("region", encoded, 0, 256)
    status = await client.get_cuda_shared_memory_status("region")
    if protocol == "http":
        assert status == [{"name": "region", "device_id": 0, "byte_size": 256}]
    else:
        assert status.regions["region"].byte_size == 256
    memory(device)[:16] = np.arange(16)
    given = kind.InferInput("INPUT0", [16], "FP32")
    given.set_shared_memory("region", 64)
    wanted = kind.InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory("region", 64, offset=128)
    await client.infer("ident", [given], outputs=[wanted])
    (seen,) = core.requests
    tensor = seen.inputs["INPUT0"]
    assert isinstance(tensor, DeviceTensor)
    assert tensor.device.address == device.shared[HANDLE].ctypes.data, "in place"
    assert not tensor.is_on_host
    assert seen.residence == {"OUTPUT0": Residence.READY}
    assert memory(device)[32:48].tolist() == list(range(16))
    with pytest.raises(InferenceServerException, match="already in manager"):
        await client.register_cuda_shared_memory("region", encoded, 0, 256)
    await client.unregister_cuda_shared_memory("region")
    with pytest.raises(InferenceServerException, match="Unable to find cuda shared memory region"):
        await client.get_cuda_shared_memory_status("region")


async def test_an_output_on_the_host_is_written_to_the_region(
    clients: dict[str, Any], device: TwinDevice
) -> None:
    http = clients["http"]
    await http.register_cuda_shared_memory("region", base64.b64encode(HANDLE), 0, 256)
    given = triton.InferInput("INPUT0", [4], "FP32")
    given.set_data_from_numpy(np.array([1, 2, 3, 4], np.float32))
    wanted = triton.InferRequestedOutput("OUTPUT0")
    wanted.set_shared_memory("region", 16)
    await http.infer("ident", [given], outputs=[wanted])
    assert memory(device)[:4].tolist() == [1, 2, 3, 4]
    wanted.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match=r"\(8 bytes\) should be at least 16 bytes"):
        await http.infer("ident", [given], outputs=[wanted])


WRONG = {
    "short handle": (("r", b"short", 0, 64), r"raw_handle has 5 bytes, .* has 64"),
    "unknown handle": (("r", b"x" * 64, 0, 64), "cudaIpcOpenMemHandle: CUDA error 1"),
    "too large": (
        ("r", HANDLE, 0, 512),
        "byte_size 512 is more than the 256 bytes that the handle",
    ),
    "empty": (("r", HANDLE, 0, 0), "byte_size 0 must be positive"),
    "no such gpu": (("r", HANDLE, -1, 64), "device_id -1 a GPU"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_registered_is_told(case: str, device: TwinDevice) -> None:
    given, pattern = WRONG[case]
    with pytest.raises(InvalidRequest, match=pattern):
        CudaRegions(lambda _: device).register(*given)


def test_a_handle_that_is_too_small_is_closed_again(device: TwinDevice) -> None:
    with pytest.raises(InvalidRequest):
        CudaRegions(lambda _: device).register("r", HANDLE, 0, 512)
    assert device.closed == [device.shared[HANDLE].ctypes.data]


def test_without_a_gpu_the_reason_is_the_runtime_s() -> None:
    def none(_: int) -> Any:
        raise LoadFailed("no CUDA runtime was found")

    with pytest.raises(InvalidRequest, match="region 'r': no CUDA runtime was found"):
        CudaRegions(none).register("r", HANDLE, 0, 64)


@pytest.mark.parametrize(
    ("place", "pattern"),
    [
        ((300, 16), "offset 300 is outside of its 256 bytes"),
        ((248, 16), r"248 \+ 16 is past its 256 bytes"),
        ((2, 16), "begins at byte 2 .* no multiple of its elements' 4 bytes"),
        ((0, 20), "Expected 16, got 20"),
    ],
)
def test_a_tensor_must_lie_within_its_region(
    place: tuple[int, int], pattern: str, device: TwinDevice
) -> None:
    regions = CudaRegions(lambda _: device)
    regions.register("r", HANDLE, 0, 256)
    with pytest.raises(InvalidRequest, match=pattern):
        regions.tensor("r", *place, "x", DataType.FP32, (4,))


def test_texts_cannot_lie_on_a_gpu(device: TwinDevice) -> None:
    regions = CudaRegions(lambda _: device)
    regions.register("r", HANDLE, 0, 256)
    with pytest.raises(InvalidRequest, match="'x' is BYTES, which cannot be in CUDA shared memory"):
        regions.tensor("r", 0, 16, "x", DataType.BYTES, (1,))


def test_a_region_that_a_request_still_uses_is_closed_behind_it(device: TwinDevice) -> None:
    regions = CudaRegions(lambda _: device)
    regions.register("r", HANDLE, 0, 256)
    tensor = regions.tensor("r", 0, 16, "x", DataType.FP32, (4,))
    regions.unregister(None)
    assert device.closed == []
    assert tensor.numpy().tolist() == [0, 0, 0, 0]
    del tensor
    deadline = time.monotonic() + patience()
    while not device.closed:
        assert time.monotonic() < deadline, "never closed"
        time.sleep(0.01)


def test_a_name_is_one_region_s_of_either_kind(device: TwinDevice) -> None:
    regions = SharedMemory(enabled=True, cuda=CudaRegions(lambda _: device))
    regions.register_cuda("r", HANDLE, 0, 256)
    with pytest.raises(AlreadyExists):
        regions.register("r", "/anything", 0, 4)
    off = SharedMemory(enabled=False, cuda=CudaRegions(lambda _: device))
    with pytest.raises(Unsupported, match="--allow-client-shm"):
        off.register_cuda("r", HANDLE, 0, 256)


async def test_a_handle_that_is_no_base64_is_told(core: FakeCore) -> None:
    site = await open_site(core)
    path = "/v2/cudasharedmemory/region/r/register"
    for handle in ("text", {"b64": "%%%"}, {}):
        body = {"raw_handle": handle, "device_id": 0, "byte_size": 4}
        async with site.session.post(path, json=body) as answer:
            assert answer.status == 400
            assert "must be an object with base64 text in 'b64'" in (await answer.json())["error"]
    await site.close()
