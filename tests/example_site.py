"""A server over the example repository as it is shipped, and calls of it with tritonclient."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from patience import patience
from serving import RunningServer, start_server
from tritonclient.utils import np_to_triton_dtype

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = ROOT / "model_repository"

Arrays = dict[str, np.ndarray]
Call = Callable[[str, Arrays], Arrays]


@contextmanager
def open_examples(*flags: str) -> Iterator[RunningServer]:
    """Makes the weights that are not yet there and serves the repository."""
    subprocess.run([sys.executable, REPOSITORY / "build.py"], check=True, timeout=patience(600))
    server = start_server(REPOSITORY, *flags)
    try:
        yield server
        assert server.stop() == 0
    finally:
        server.end()


@dataclass(frozen=True, slots=True)
class TritonClient:
    """tritonclient's http or grpc module with a client of it; both are used alike."""

    module: ModuleType
    client: Any

    def infer(self, model: str, arrays: Arrays, outputs: list[Any] | None = None) -> Any:
        """tritonclient's InferResult."""
        inputs = [self.tensor(name, array) for name, array in arrays.items()]
        return self.client.infer(model, inputs, outputs=outputs)

    def call(self, model: str, arrays: Arrays) -> Arrays:
        """All outputs by name."""
        names = self.output_names(model)
        result = self.infer(model, arrays)
        return {name: result.as_numpy(name) for name in names}

    def output_names(self, model: str) -> list[str]:
        """From the model's metadata."""
        if self.module.__name__.endswith("http"):
            return [output["name"] for output in self.client.get_model_metadata(model)["outputs"]]
        return [output.name for output in self.client.get_model_metadata(model).outputs]

    def tensor(self, name: str, array: np.ndarray) -> Any:
        """tritonclient's InferInput."""
        made = self.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        made.set_data_from_numpy(array)
        return made
