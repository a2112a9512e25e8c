"""A GPU that faults under an isolated model: its process ends and starts anew, nothing else."""

import os
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from installed_backend import install_backend
from patience import patience

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    DeviceFull,
    DeviceLost,
    InstanceDied,
    ModelFiles,
    Placement,
    ServingError,
    Tensor,
    Unavailable,
)
from trivet.backends.process import open_isolated
from trivet.backends.process.instance import ProcessInstance
from trivet.protos.model_config_pb2 import ModelConfig

FAULTY = """
import os
import numpy as np
from trivet.backends.api import About, DeviceFull, Tensor
from trivet.backends.device.errors import raise_for

class AcceleratorError(RuntimeError):
    "As PyTorch's."

class Instance:
    def __init__(self):
        self.is_poisoned = False
    def execute(self, batch):
        word = batch.requests[0].id
        if self.is_poisoned or word in ("fault", "torch"):
            # Once it has faulted, every call fails.
            self.is_poisoned = True
            if word == "torch":
                raise AcceleratorError("CUDA error: an illegal memory access was encountered")
            raise_for("cudaEventSynchronize", 700, "cudaErrorIllegalAddress")
        if word == "full":
            raise DeviceFull("this batch did not fit")
        batch.scatter("pid", np.array([[os.getpid()]], np.int64))
    def is_ready(self):
        return not self.is_poisoned
    def close(self):
        if self.is_poisoned:
            raise RuntimeError("what closing does on a faulted GPU")

class Backend:
    def complete(self, config, files):
        return config
    def open(self, config, files, placement):
        return Instance()

BACKEND = Backend()
ABOUT = About(word="faulty_gpu", backend="faulty_gpu:BACKEND")
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessInstance]:
    """An isolated instance of a third-party backend whose GPU faults when it is told to."""
    sources = {"faulty_gpu.py": textwrap.dedent(FAULTY)}
    install_backend(tmp_path, "faulty_gpu", "faulty_gpu:ABOUT", sources)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    files = ModelFiles(tmp_path / "m", 1)
    (tmp_path / "m" / "1").mkdir(parents=True)
    placement = Placement("m_0", "KIND_GPU", 0, 1)
    opened = open_isolated("faulty_gpu", ModelConfig(name="m"), files, placement)
    assert isinstance(opened, ProcessInstance)
    yield opened
    opened.close()


def ask(instance: ProcessInstance, word: str = "") -> int:
    request = CheckedRequest("m", 1, word, {"x": Tensor.of("x", np.zeros((1, 2), np.float32))})
    batch = Batch([request], batching=True)
    instance.execute(batch)
    return int(batch.outputs[0][0].numpy()[0, 0])


def soon(ask_again: Callable[[], int]) -> int:
    """The answer, once the process has been started again."""
    deadline = time.monotonic() + patience()
    while True:
        try:
            return ask_again()
        except (InstanceDied, Unavailable):
            assert time.monotonic() < deadline, "never served again"
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("word", "pattern"),
    [("fault", r"CUDA error 700 .*outside of its memory"), ("torch", "met a fault of its GPU")],
)
def test_a_fault_ends_its_process_alone_and_the_model_serves_again(
    instance: ProcessInstance, word: str, pattern: str
) -> None:
    before = ask(instance)
    with pytest.raises(DeviceLost, match=pattern):
        ask(instance, word)
    after = soon(lambda: ask(instance))
    assert after != before
    assert before != os.getpid() != after
    assert not Path(f"/proc/{before}").exists()


def test_a_lack_of_memory_ends_nothing(instance: ProcessInstance) -> None:
    before = ask(instance)
    with pytest.raises(DeviceFull, match="this batch did not fit") as caught:
        ask(instance, "full")
    assert isinstance(caught.value, ServingError)
    assert ask(instance) == before
