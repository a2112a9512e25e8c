"""The same promises on a real GPU: pytest -m gpu."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx_models import add_sub_model
from torch_models import ADD_SUB, AddSub, Home

from bench.gpu import ensemble
from trivet.backends.api import (
    Batch,
    CheckedRequest,
    CopyKind,
    DataType,
    DeviceTensor,
    Instance,
    LoadFailed,
    ModelFiles,
    Placement,
    Residence,
    Tensor,
)
from trivet.backends.device.cuda import CudaGpu, open_gpu
from trivet.backends.device.gpus import new_lane
from trivet.backends.device.nvml import Gpus
from trivet.backends.onnxruntime.backend import OnnxRuntimeBackend
from trivet.backends.pytorch.backend import PyTorchBackend
from trivet.backends.tensorrt.backend import TensorRtBackend
from trivet.backends.tensorrt.library import load_tensorrt
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.repository.config import normalise, parse_config
from trivet.server.shared_memory.cuda import CudaRegions

HAS_GPU = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")]
ON_GPU = Placement("m_0", "KIND_GPU", 0, 1)
HAS_CUDA_PROVIDER = "CUDAExecutionProvider" in ort.get_available_providers()
GRAPHS = (
    " optimization { cuda { graphs: true"
    " graph_spec { batch_size: 4 graph_lower_bound { batch_size: 2 } } } }"
)


def _has_tensorrt() -> bool:
    try:
        return not load_tensorrt().is_rtx
    except LoadFailed:
        return False


def rows(count: int, first: float = 1) -> np.ndarray:
    return np.arange(first, first + count * 4, dtype=np.float32).reshape(count, 4)


def batch_of(inputs: dict[str, Any], residence: Residence = Residence.HOST) -> Batch:
    tensors = {
        name: value if isinstance(value, Tensor) else Tensor.of(name, value)
        for name, value in inputs.items()
    }
    size = next(iter(tensors.values())).shape[0]
    wanted = dict.fromkeys(("sum", "difference", "OUTPUT__0", "OUTPUT__1"), residence)
    request = CheckedRequest("m", 1, "", tensors, batch_size=size, residence=wanted)
    return Batch([request], batching=True)


def check_chain(first: Instance, second: Instance) -> None:
    """Twice a + b, the second time of what the first has left on the GPU."""
    for size in (1, 3, 4, 7):
        made = batch_of({"a": rows(size), "b": rows(size)}, Residence.DEVICE)
        first.execute(made)
        total = made.outputs[0][0]
        assert isinstance(total, DeviceTensor)
        taken = batch_of({"a": total.under("a"), "b": total.under("b")})
        second.execute(taken)
        assert taken.outputs[0][0].numpy().tolist() == (rows(size) * 4).tolist()
        assert made.synchronisations == 0
        assert CopyKind.HOST_TO_DEVICE not in taken.copies
        assert taken.synchronisations == 1
    first.close()
    second.close()


def exported(tmp_path: Path) -> ModelFiles:
    home = Home(tmp_path / "m")
    home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))
    return home.files


def test_the_runtime_moves_values_and_frees_all() -> None:
    gpu = open_gpu(0)
    lane = new_lane(gpu)
    batch = batch_of({"x": rows(3)})
    array = lane.bring(batch, "x")
    assert array is not None
    assert gpu.allocated_bytes(array.address) >= array.nbytes
    lane.wait()
    assert torch.utils.dlpack.from_dlpack(array).cpu().numpy().tolist() == rows(3).tolist()
    assert array.numpy().tolist() == rows(3).tolist()
    lane.close()


@pytest.mark.parametrize("graphs", ["", GRAPHS], ids=["eager", "graphs"])
def test_pytorch(graphs: str, tmp_path: Path) -> None:
    files = exported(tmp_path)
    backend = PyTorchBackend()
    given = parse_config(f"max_batch_size: 8 {graphs}", "m")
    given.name = "m"
    config = normalise(backend.complete(given, files))
    config.output[0].name, config.output[1].name = "sum", "difference"
    check_chain(backend.open(config, files, ON_GPU), backend.open(config, files, ON_GPU))


def test_torchscript(tmp_path: Path) -> None:
    home = Home(tmp_path / "m")
    home.put_script(AddSub())
    config = home.complete(f"max_batch_size: 8 {ADD_SUB}")
    first, second = (home.backend.open(config, home.files, ON_GPU) for _ in range(2))
    check_chain(first, second)


@pytest.mark.skipif(not HAS_CUDA_PROVIDER, reason="this ONNX Runtime has no CUDA")
@pytest.mark.parametrize("graphs", ["", GRAPHS], ids=["eager", "graphs"])
def test_onnx_runtime(graphs: str, tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(add_sub_model())
    files, backend = ModelFiles(tmp_path / "m", 1), OnnxRuntimeBackend()
    given = parse_config(f"max_batch_size: 8 {graphs}", "m")
    given.name = "m"
    config = normalise(backend.complete(given, files))
    check_chain(backend.open(config, files, ON_GPU), backend.open(config, files, ON_GPU))


@pytest.mark.skipif(not _has_tensorrt(), reason="TensorRT is not installed")
@pytest.mark.parametrize("graphs", ["", GRAPHS], ids=["eager", "graphs"])
def test_tensorrt(graphs: str, tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(add_sub_model())
    backend, files = TensorRtBackend(), ModelFiles(tmp_path / "m", 1)
    backend.build(version / "model.onnx", version / "model.plan", {"max_batch_size": 8})
    given = parse_config(f"max_batch_size: 8 {graphs}", "m")
    given.name = "m"
    config = normalise(backend.complete(given, files))
    check_chain(backend.open(config, files, ON_GPU), backend.open(config, files, ON_GPU))


def test_models_of_two_frameworks_pass_tensors_on(tmp_path: Path) -> None:
    files = exported(tmp_path)
    backend = PyTorchBackend()
    config = normalise(backend.complete(ModelConfig(name="m", max_batch_size=8), files))
    config.output[0].name, config.output[1].name = "sum", "difference"
    if not HAS_CUDA_PROVIDER:
        pytest.skip("this ONNX Runtime has no CUDA")
    (tmp_path / "o" / "1").mkdir(parents=True)
    (tmp_path / "o" / "1" / "model.onnx").write_bytes(add_sub_model())
    onnx_files, onnx = ModelFiles(tmp_path / "o", 1), OnnxRuntimeBackend()
    onnx_config = normalise(onnx.complete(ModelConfig(name="o", max_batch_size=8), onnx_files))
    check_chain(backend.open(config, files, ON_GPU), onnx.open(onnx_config, onnx_files, ON_GPU))


OWNER = """
import ctypes, sys
cuda = ctypes.CDLL(sys.argv[1])
pointer = ctypes.c_void_p()
assert cuda.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1024)) == 0
values = (ctypes.c_float * 256)(*range(256))
assert cuda.cudaMemcpy(pointer, values, ctypes.c_size_t(1024), 1) == 0
handle = (ctypes.c_char * 64)()
assert cuda.cudaIpcGetMemHandle(ctypes.byref(handle), pointer) == 0
sys.stdout.write(bytes(handle).hex() + "\\n"); sys.stdout.flush()
sys.stdin.readline()
assert cuda.cudaMemcpy(values, pointer, ctypes.c_size_t(1024), 2) == 0
print(values[128])
"""


@pytest.fixture
def owner() -> Iterator["subprocess.Popen[str]"]:
    """A process that has memory on the GPU, and says its handle."""
    library = f"libcudart.so.{(torch.version.cuda or '13').partition('.')[0]}"
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, library],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def test_another_process_s_memory_is_read_and_written(owner: "subprocess.Popen[str]") -> None:
    assert owner.stdout is not None
    assert owner.stdin is not None
    handle = bytes.fromhex(owner.stdout.readline().strip())
    regions = CudaRegions()
    regions.register("r", handle, 0, 1024)
    tensor = regions.tensor("r", 0, 1024, "x", DataType.FP32, (256,))
    assert tensor.numpy().tolist() == list(range(256))
    regions.write("r", 512, Tensor.of("y", np.full(4, 7, np.float32)), 16)
    owner.stdin.write("\n")
    owner.stdin.flush()
    assert owner.stdout.readline().strip() == "7.0"


def test_the_gpu_is_found_with_its_memory() -> None:
    gpus = Gpus.find()
    assert len(gpus.all) == torch.cuda.device_count()
    gpu = open_gpu(0)
    assert isinstance(gpu, CudaGpu)
    assert gpu.compute_capability == torch.cuda.get_device_capability(0)
    assert abs(gpus.read(gpus.all[0]).total_bytes - gpu.free_bytes().total) < 2 << 30


def test_a_chain_in_a_server_copies_nothing_over_the_host() -> None:
    verdicts = {row.cell.partition(": ")[2]: row.verdict for row in ensemble.run(1.0)}
    assert verdicts["host bytes between steps"] == "pass"
    assert verdicts["host waits of the middle step"] == "pass"
