"""Models made by TensorFlow and Keras, and what becomes of them: by one process for all tests."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from house_rules import ROOT


@dataclass(frozen=True)
class Site:
    """A repository of models, and the report of `tensorflow_site.py` by their names."""

    folder: Path
    results: dict[str, Any]

    @classmethod
    def made_in(cls, folder: Path) -> Self:
        """Runs the program, which takes seconds."""
        program = str(ROOT / "tests" / "tensorflow_site.py")
        made = subprocess.run(
            [sys.executable, program, str(folder)], capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
        return cls(folder, json.loads((folder / "results.json").read_text()))

    def arrays(self, name: str, key: str) -> dict[str, np.ndarray]:
        """The tensors under "outputs" or "expected"."""
        return {tensor: array_of(each) for tensor, each in self.results[name][key].items()}


def array_of(each: Any) -> np.ndarray:
    return np.array(each["values"]).reshape(each["shape"])
