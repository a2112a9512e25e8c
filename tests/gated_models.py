"""Models that compute until the test lets them go on: no length of time has to be right."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CODE = """
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.gate = parameters["gate"]["string_value"]

    def execute(self, requests):
        open(self.gate + ".reached", "w").close()
        while os.path.exists(self.gate):
            time.sleep(0.005)
        return [pb_utils.InferenceResponse([self.answer(request)]) for request in requests]

    def answer(self, request):
        given = pb_utils.get_input_tensor_by_name(request, "INPUT0")
        return pb_utils.Tensor("OUTPUT0", given.as_numpy())
"""


@dataclass(frozen=True)
class Gate:
    """Open, where its file is not there."""

    path: Path

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Within the block whoever computes goes on until `open`."""
        self._reached.unlink(missing_ok=True)
        self.path.touch()
        try:
            yield
        finally:
            self.open()

    def open(self) -> None:
        """Lets all go on, until it is shut again."""
        self.path.unlink(missing_ok=True)

    def is_reached(self) -> bool:
        """Whether somebody has begun to compute since it was shut."""
        return self._reached.exists()

    @property
    def _reached(self) -> Path:
        return self.path.with_name(f"{self.path.name}.reached")


def write_gated(
    repository: Path, name: str, gate: Gate, *, dims: int = 4, max_batch_size: int = 1,
    more: str = "", more_of_output: str = "",
) -> Path:  # fmt: skip
    """A model that returns its FP32 input once the gate is open; returns its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(CODE)
    (folder / "config.pbtxt").write_text(
        f'backend: "python" max_batch_size: {max_batch_size}\n'
        f'input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'
        f'output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ {dims} ] {more_of_output} }} ]\n'
        f'parameters {{ key: "gate" value {{ string_value: "{gate.path}" }} }}\n{more}'
    )
    return folder
