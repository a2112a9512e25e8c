"""The GPU path of ONNX models: real sessions and bindings, on the twin of a GPU in host memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from device_batches import batch_of, given, rows
from device_twin import TwinDevice
from google.protobuf import text_format
from onnx import TensorProto
from onnx_models import add_sub_model, identity_model

from trivet.backends.api import (
    CopyKind,
    DeviceTensor,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Residence,
    Signature,
    Unavailable,
)
from trivet.backends.device.buckets import buckets_of
from trivet.backends.device.gpus import new_lane
from trivet.backends.onnxruntime.backend import OnnxRuntimeBackend
from trivet.backends.onnxruntime.gpu_instance import GpuOnnxInstance
from trivet.backends.onnxruntime.options import plan_session
from trivet.backends.onnxruntime.sessions import create_session
from trivet.protos.model_config_pb2 import ModelConfig

GPU_PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


class OrderedSession:
    """A real session whose runs take their turn in the instance's stream.

    ONNX Runtime tells outputs' shapes when a run is given to the stream; here the run is done then,
    after all that stands before it, so a wait that is missing shows in the values.
    """

    def __init__(self, session: ort.InferenceSession, device: TwinDevice) -> None:
        self._session = session
        self._device = device
        self.stream: Any = None
        self.options: list[dict[str, str]] = []
        self.fails_with: Exception | None = None

    def io_binding(self) -> ort.IOBinding:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        if self.fails_with is not None:
            raise self.fails_with
        keys = ("gpu_graph_id", "disable_synchronize_execution_providers")
        self.options.append({key: _entry(options, key) for key in keys})
        self.stream.run_all()
        # The CPU's sessions know nothing of these options.
        self._session.run_with_iobinding(binding)


def _entry(options: ort.RunOptions, key: str) -> str:
    try:
        return str(options.get_run_config_entry(key))
    except RuntimeError:
        return ""


class Site:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.device = TwinDevice()
        self.session: OrderedSession

    def open(self, model: bytes, config: str = "") -> GpuOnnxInstance:
        folder = self.root / "m"
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "1" / "model.onnx").write_bytes(model)
        files = ModelFiles(folder, 1)
        given = text_format.Parse(config, ModelConfig(name="m"))
        completed = OnnxRuntimeBackend().complete(given, files)
        plan = plan_session(completed, files, Placement("m_0", "KIND_CPU", 0, 1))
        session = create_session(folder / "1" / "model.onnx", plan)
        self.session = OrderedSession(session, self.device)
        lane = new_lane(self.device)
        self.session.stream = lane.stream
        signature = Signature.from_config(completed)
        shapes = {name: signature.full_dims(spec) for name, spec in signature.inputs.items()}
        stand_in: Any = self.session
        buckets = buckets_of(completed, shapes)
        return GpuOnnxInstance(stand_in, signature, lane, buckets, None, "cpu")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_inputs_are_bound_where_they_lie_and_outputs_stay(site: Site) -> None:
    instance = site.open(add_sub_model())
    batch = batch_of({"a": rows(1), "b": rows(1)}, {"a": rows(2, 9), "b": rows(2)})
    instance.execute(batch)
    sums = {t.name: t.numpy().tolist() for t in batch.outputs[1]}
    assert sums == {
        "sum": (rows(2, 9) + rows(2)).tolist(), "difference": np.full((2, 4), 8.0).tolist(),
    }  # fmt: skip
    assert batch.synchronisations == 1
    assert site.session.options[-1]["disable_synchronize_execution_providers"] == "1"


def test_a_chain_of_models_copies_nothing_between_them(site: Site, tmp_path: Path) -> None:
    first = site.open(add_sub_model())
    made = batch_of({"a": rows(2), "b": rows(2)}, residence=Residence.DEVICE)
    first.execute(made)
    other = Site(tmp_path / "other")
    other.device = site.device
    second = other.open(add_sub_model())
    total = made.outputs[0][0]
    assert isinstance(total, DeviceTensor)
    taken = batch_of({"a": rows(2), "b": rows(2)})
    taken = given(taken, a=total, b=total)
    second.execute(taken)
    assert taken.outputs[0][0].numpy().tolist() == (rows(2) * 4).tolist()
    assert made.synchronisations == 0
    assert taken.copies == {CopyKind.DEVICE_TO_HOST: 64}


def test_bfloat16_is_bound_by_its_onnx_type(site: Site) -> None:
    import ml_dtypes

    instance = site.open(identity_model(TensorProto.BFLOAT16))
    values = rows(2).astype(ml_dtypes.bfloat16)
    batch = batch_of({"x": values})
    instance.execute(batch)
    assert batch.outputs[0][0].numpy().tolist() == values.tolist()


GRAPHS = """
optimization { cuda { graphs: true
  graph_spec { batch_size: 4 graph_lower_bound { batch_size: 2 } } } }
"""


def test_cuda_graphs_are_captured_at_load_and_replayed_for_their_sizes(site: Site) -> None:
    instance = site.open(identity_model(), GRAPHS)
    site.session.options.clear()
    for size, graph in ((1, "-1"), (3, "1"), (4, "1")):
        batch = batch_of({"x": rows(size, size)})
        instance.execute(batch)
        assert batch.outputs[0][0].numpy().tolist() == rows(size, size).tolist()
        assert site.session.options[-1]["gpu_graph_id"] == graph


def test_memory_goes_back(site: Site) -> None:
    instance = site.open(identity_model())
    for _ in range(3):
        instance.execute(batch_of({"x": rows(2)}))
    instance.close()
    for stream in site.device.streams.values():
        stream.run_all()
    assert site.device.used_bytes == 0


def test_a_batch_without_memory_is_worth_another_try(site: Site) -> None:
    instance = site.open(identity_model())
    reason = "CUDA failure 2: out of memory ; GPU=0"
    site.session.fails_with = ort.capi.onnxruntime_pybind11_state.RuntimeException(reason)
    with pytest.raises(Unavailable, match=r"no memory left for this batch; lower max_batch_size"):
        instance.execute(batch_of({"x": rows(1)}))
    site.session.fails_with = None
    instance.execute(batch_of({"x": rows(1)}))


def plan(text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: GPU_PROVIDERS)
    config = text_format.Parse(text, ModelConfig(name="m"))
    placement = Placement("m_0", "KIND_GPU", 1, 1)
    return plan_session(config, ModelFiles(Path("/nowhere/m"), 1), placement)


def test_providers_compute_on_the_instance_s_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """optimization { execution_accelerators { gpu_execution_accelerator {
        name: "tensorrt" parameters { key: "precision_mode" value: "BF16" } } } }
        parameters { key: "arena_extend_strategy" value { string_value: "1" } }
        parameters { key: "cudnn_conv_algo_search" value { string_value: "1" } }"""
    found = plan(text, monkeypatch).on_stream(12345, captures=True)
    tensorrt, cuda = (dict(options) for _, options in found.providers[:2])
    assert tensorrt == {
        "device_id": "1", "trt_bf16_enable": "True", "trt_cuda_graph_enable": "1",
        "user_compute_stream": "12345",
    }  # fmt: skip
    assert cuda == {
        "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC",
        "device_id": "1", "enable_cuda_graph": "1", "user_compute_stream": "12345",
    }  # fmt: skip
    assert found.providers[2] == ("CPUExecutionProvider", ())


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('parameters { key: "cudnn_conv_algo_search" value { string_value: "7" } }',
         r"cudnn_conv_algo_search is '7', but must be one of 0 \(EXHAUSTIVE\)"),
        ('optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
         'parameters { key: "precision_mode" value: "FP8" } } } }',
         r"precision_mode is 'FP8', but must be one of"),
    ],
)  # fmt: skip
def test_values_that_are_none_are_refused(
    text: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidConfig, match=pattern):
        plan(text, monkeypatch)


def test_a_provider_that_does_not_start_is_no_silent_fallback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = plan("", monkeypatch)
    started = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: started)
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    with pytest.raises(LoadFailed, match=r"could not start CUDAExecutionProvider .* nvidia-smi"):
        create_session(Path("/nowhere/model.onnx"), found)


def test_without_a_driver_a_gpu_placement_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.open(identity_model())
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: GPU_PROVIDERS)

    def no_gpu(number: int) -> Any:
        raise LoadFailed(f"GPU {number} cannot be used: the NVIDIA driver is missing")

    backend = OnnxRuntimeBackend(no_gpu)
    files = ModelFiles(site.root / "m", 1)
    config = backend.complete(ModelConfig(name="m"), files)
    with pytest.raises(LoadFailed, match="model 'm': GPU 1 cannot be used: the NVIDIA driver"):
        backend.open(config, files, Placement("m_0", "KIND_GPU", 1, 1))
