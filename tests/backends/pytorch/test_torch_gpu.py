"""The GPU path of PyTorch models: real programs, on the twin of a GPU in host memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_batches import batch_of, given, rows
from device_twin import TwinDevice, TwinStream
from google.protobuf import text_format
from torch_models import AddSub, Counter, Same, io

from trivet.backends.api import (
    BackendFailed,
    CopyKind,
    DeviceFull,
    DeviceLost,
    DeviceTensor,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Residence,
    Signature,
    Stream,
)
from trivet.backends.device.buckets import buckets_of
from trivet.backends.device.gpus import new_lane
from trivet.backends.pytorch.backend import PyTorchBackend
from trivet.backends.pytorch.cuda import Replay
from trivet.backends.pytorch.gpu_instance import GpuPyTorchInstance
from trivet.backends.pytorch.names import match_positions
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.program import Program, storages
from trivet.protos.model_config_pb2 import ModelConfig


class TwinTorch:
    """PyTorch in its turn in a twin's stream: what stands there before it is done first."""

    def __init__(self) -> None:
        self.num_replays = 0
        self.num_forgotten = 0

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        assert isinstance(stream, TwinStream)
        stream.run_all()
        yield

    def capture(self, stream: Stream, call: Callable[[], object]) -> tuple[object, Replay]:
        assert isinstance(stream, TwinStream)
        results: Any = call()
        results = results if isinstance(results, tuple) else (results,)

        def replay() -> None:
            stream.run_all()
            self.num_replays += 1
            made: Any = call()
            made = made if isinstance(made, tuple) else (made,)
            with torch.inference_mode():
                for kept, new in zip(results, made, strict=True):
                    kept.copy_(new)

        return results, replay

    def forget_unused(self) -> None:
        self.num_forgotten += 1


class Site:
    def __init__(self) -> None:
        self.device = TwinDevice()
        self.torch = TwinTorch()

    def open(self, module: torch.nn.Module, config: str) -> GpuPyTorchInstance:
        given = text_format.Parse(f"max_batch_size: 8 {config}", ModelConfig(name="m"))
        names = [tensor.name for tensor in given.input]
        positions = match_positions("m", [tensor.name for tensor in given.output], None)
        program = Program(
            lambda tensors: module(*[tensors[name] for name in names]),
            positions,
            storages((*module.parameters(), *module.buffers())),
        )
        signature = Signature.from_config(given)
        shapes = {name: signature.full_dims(spec) for name, spec in signature.inputs.items()}
        return GpuPyTorchInstance(
            program, signature, new_lane(self.device), self.torch,
            PyTorchParameters.read(given), buckets_of(given, shapes),
        )  # fmt: skip


@pytest.fixture
def site() -> Site:
    return Site()


ADD_SUB = io("input", "a", "b") + io("output", "sum", "difference")
SAME = io("input", "x") + io("output", "y")


def test_a_batch_is_computed_on_the_stream_with_one_wait(site: Site) -> None:
    instance = site.open(AddSub(), ADD_SUB)
    batch = batch_of({"a": rows(1), "b": rows(1)}, {"a": rows(2, 9), "b": rows(2)})
    instance.execute(batch)
    assert [t.numpy().tolist() for t in batch.outputs[1]] == [
        (rows(2, 9) + rows(2)).tolist(), np.full((2, 4), 8.0).tolist(),
    ]  # fmt: skip
    assert batch.synchronisations == 1
    assert batch.copies == {CopyKind.HOST_TO_DEVICE: 96, CopyKind.DEVICE_TO_HOST: 96}


def test_a_chain_copies_nothing_and_waits_for_nothing(site: Site) -> None:
    first, second = site.open(AddSub(), ADD_SUB), site.open(AddSub(), ADD_SUB)
    made = batch_of({"a": rows(2), "b": rows(2)}, residence=Residence.DEVICE)
    first.execute(made)
    total = made.outputs[0][0]
    assert isinstance(total, DeviceTensor)
    taken = batch_of({"a": rows(2), "b": rows(2)}, residence=Residence.DEVICE)
    taken = given(taken, a=total, b=total)
    second.execute(taken)
    assert made.synchronisations == taken.synchronisations == 0
    assert taken.copies == {}
    assert taken.outputs[0][0].numpy().tolist() == (rows(2) * 4).tolist()


def test_an_output_that_is_an_input_outlives_its_maker(site: Site) -> None:
    first, same, last = (
        site.open(AddSub(), ADD_SUB), site.open(Same(), SAME), site.open(Same(), SAME),
    )  # fmt: skip
    made = batch_of({"a": rows(1), "b": rows(1)}, residence=Residence.DEVICE)
    first.execute(made)
    passed = batch_of({"x": rows(1)}, residence=Residence.DEVICE)
    passed = given(passed, x=made.outputs[0][0])
    same.execute(passed)
    final = batch_of({"x": rows(1)}, residence=Residence.DEVICE)
    final = given(final, x=passed.outputs[0][0])
    last.execute(final)
    result = final.outputs[0][0]
    del made, passed, final
    for stream in site.device.streams.values():
        stream.run_all()
    assert result.numpy().tolist() == (rows(1) * 2).tolist()


def test_an_output_on_the_program_s_own_memory_is_copied_on_the_device(site: Site) -> None:
    instance = site.open(Counter(), SAME)
    first, second = batch_of({"x": rows(1)}), batch_of({"x": rows(1)})
    instance.execute(first)
    instance.execute(second)
    assert first.outputs[0][0].numpy().tolist() == [[10]]
    assert second.outputs[0][0].numpy().tolist() == [[20]]
    assert first.copies[CopyKind.DEVICE] == 4


GRAPHS = """optimization { cuda { graphs: true
  graph_spec { batch_size: 4 graph_lower_bound { batch_size: 2 } } } }"""


def test_graphs_compute_the_sizes_that_they_hold(site: Site) -> None:
    instance = site.open(AddSub(), ADD_SUB + GRAPHS)
    for size, replays in ((1, 0), (2, 1), (4, 2), (5, 2)):
        batch = batch_of({"a": rows(size, size), "b": rows(size)})
        instance.execute(batch)
        assert batch.outputs[0][0].numpy().tolist() == (rows(size, size) + rows(size)).tolist()
        assert site.torch.num_replays == replays


def test_a_program_that_cannot_be_captured_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(site.torch, "capture", refuse)
    with pytest.raises(InvalidConfig, match=r"cannot be captured .* not permitted .*leave it out"):
        site.open(AddSub(), ADD_SUB + GRAPHS)


class Failing(torch.nn.Module):
    error: Exception | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        return x * 2


def test_a_batch_without_memory_fails_alone_and_what_is_kept_is_given_back(site: Site) -> None:
    module = Failing()
    instance = site.open(module, SAME)
    module.error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")
    with pytest.raises(DeviceFull, match=r"lower max_batch_size .*Tried to allocate 3.00 GiB"):
        instance.execute(batch_of({"x": rows(1)}))
    assert site.torch.num_forgotten == 1
    module.error = None
    batch = batch_of({"x": rows(1)})
    instance.execute(batch)
    assert batch.outputs[0][0].numpy().tolist() == (rows(1) * 2).tolist()
    assert instance.is_ready()


def test_a_fault_of_the_gpu_makes_the_model_not_ready(site: Site) -> None:
    module = Failing()
    instance = site.open(module, SAME)
    fault: Any = getattr(torch, "AcceleratorError", torch.cuda.CudaError)
    module.error = fault("CUDA error: an illegal memory access was encountered")
    with pytest.raises(DeviceLost, match=r"illegal memory access.*isolation: process"):
        instance.execute(batch_of({"x": rows(1)}))
    assert not instance.is_ready()
    instance.close()


def test_an_output_of_another_type_is_told(site: Site) -> None:
    instance = site.open(Same(), io("input", "x") + io("output", "y", kind="INT64"))
    with pytest.raises(BackendFailed, match=r"returned torch.float32 for output 'y', but its conf"):
        instance.execute(batch_of({"x": rows(1)}))


def test_memory_goes_back(site: Site) -> None:
    instance = site.open(AddSub(), ADD_SUB + GRAPHS)
    for size in (1, 3):
        instance.execute(batch_of({"a": rows(size), "b": rows(size)}))
    instance.close()
    del instance
    for stream in site.device.streams.values():
        stream.run_all()
    assert site.device.used_bytes == 0


def test_a_gpu_placement_without_cuda_says_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    x = torch.zeros(2, 4)
    torch.export.save(torch.export.export(AddSub(), (x, x)), folder / "model.pt2")
    backend, files = PyTorchBackend(), ModelFiles(tmp_path / "m", 1)
    config = backend.complete(ModelConfig(name="m"), files)
    with pytest.raises(LoadFailed, match=r"asks for GPU 0, but PyTorch .* (without CUDA|finds no)"):
        backend.open(config, files, Placement("m_0", "KIND_GPU", 0, 1))
