"""The real side of the seam, against a libcudart of ours: what is called with what."""

import gc

import numpy as np
import pytest
from cuda_site import Notes, fake_cudart

from trivet.backends.api import Batch, CheckedRequest, DeviceLost, LoadFailed, Tensor
from trivet.backends.device.cuda import CudaGpu, open_gpu
from trivet.backends.device.errors import DeviceFailed, OutOfMemory
from trivet.backends.device.lane import Lane
from trivet.backends.device.library import CudaLibrary, load_library
from trivet.backends.device.pinned import PinnedPool


@pytest.fixture
def gpu() -> CudaGpu:
    return CudaGpu(CudaLibrary(fake_cudart(), fake_cudart()), 0)


def test_a_batch_crosses_with_one_synchronisation_and_frees_all(gpu: CudaGpu) -> None:
    gc.collect()
    notes = Notes()
    handles, held = notes.live_handles, notes.live_bytes
    lane = Lane(gpu, PinnedPool(gpu))
    tensor = Tensor.of("x", np.arange(6.0).reshape(2, 3))
    request = CheckedRequest("m", 1, "", {"x": tensor}, batch_size=2)
    batch = Batch([request], batching=True)
    given = lane.bring(batch, "x")
    assert given is not None
    lane.hand_out(batch, {"y": given})
    assert batch.outputs[0][0].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    calls = notes.calls()
    assert calls.count("cudaEventSynchronize") == 1
    assert calls.count("cudaMemcpyAsync") == 2
    del batch, given, request, lane
    gc.collect()
    assert (notes.live_handles, notes.live_bytes) == (handles, held)


def test_what_was_captured_is_launched(gpu: CudaGpu) -> None:
    notes = Notes()
    stream = gpu.new_stream()
    gpu.begin_capture(stream)
    graph = gpu.end_capture(stream)
    graph.launch(stream)
    graph.close()
    calls = notes.calls()
    assert "cudaGraphLaunch" in calls
    assert "cudaGraphDestroy" in calls
    assert "cudaGraphExecDestroy" in calls


def test_memory_that_is_not_there_is_an_error_of_its_own(gpu: CudaGpu) -> None:
    stream = gpu.new_stream()
    with pytest.raises(OutOfMemory, match=r"GPU's memory is full; lower max_batch_size"):
        gpu.allocate(1 << 40, stream)


def test_a_fault_of_the_gpu_says_that_the_process_is_lost(
    gpu: CudaGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = gpu.new_stream().record()
    monkeypatch.setenv("FAKE_CUDA_ERROR", "cudaEventSynchronize:700")
    with pytest.raises(DeviceLost, match=r"wrote outside of its memory.*isolation: process"):
        event.wait()


def test_a_lane_on_a_faulted_gpu_is_lost(gpu: CudaGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = Lane(gpu, PinnedPool(gpu))
    request = CheckedRequest("m", 1, "", {"x": Tensor.of("x", np.zeros(3, np.float32))})
    batch = Batch([request], batching=False)
    monkeypatch.setenv("FAKE_CUDA_ERROR", "cudaMemcpyAsync:719")
    with pytest.raises(DeviceLost), lane.computing():
        lane.bring(batch, "x")
    assert lane.is_lost
    lane.close()


def test_an_old_driver_and_a_missing_gpu_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_ERROR", "cudaGetDeviceCount:35")
    with pytest.raises(LoadFailed, match=r"driver is missing or older .* install a newer"):
        open_gpu.__wrapped__(0, fake_cudart())
    monkeypatch.delenv("FAKE_CUDA_ERROR")
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    assert open_gpu.__wrapped__(1, fake_cudart()).number == 1
    with pytest.raises(LoadFailed, match=r"GPU 5 is asked for, but there are 2, numbered from 0"):
        open_gpu.__wrapped__(5, fake_cudart())


def test_without_a_runtime_the_package_to_install_is_named() -> None:
    with pytest.raises(LoadFailed, match=r"no CUDA runtime was found .*trivet\[onnx-gpu\]"):
        load_library.__wrapped__("/nowhere/libcudart.so.13")


def test_the_runtime_and_the_gpu_say_what_they_are(gpu: CudaGpu) -> None:
    assert load_library(fake_cudart()).version() == "13.0"
    assert gpu.compute_capability == (9, 0)
    assert gpu.free_bytes().total == 1 << 30


def test_memory_of_another_process_is_opened_and_let_go(gpu: CudaGpu) -> None:
    notes = Notes()
    address = gpu.open_ipc(b"CUDA" + bytes(60))
    assert gpu.allocated_bytes(address + 96) == 4000
    gpu.close_ipc(address)
    assert {"cudaIpcOpenMemHandle", "cudaIpcCloseMemHandle"} <= set(notes.calls())
    with pytest.raises(DeviceFailed, match="cudaIpcOpenMemHandle"):
        gpu.open_ipc(bytes(64))
