"""What lies in an image classifier's folder. Reads JSON, and knows no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api.image_classifier import ImageClassifierInfo
from trivet.backends.hugging_face.files import CONFIG, PREPROCESSOR
from trivet.backends.hugging_face.folder import (
    architecture_of,
    labels_of,
    onnx_file,
    read_json,
)


@dataclass(frozen=True, slots=True)
class Folder:
    """An image classifier's folder."""

    path: Path
    config: Mapping[str, Any]
    architecture: str
    labels: tuple[str, ...]
    onnx: Path | None

    @property
    def info(self) -> ImageClassifierInfo:
        """What others know of it. Scores are made as transformers' pipeline makes them."""
        problem = self.config.get("problem_type")
        if problem == "regression":
            activation = "identity"
        elif problem == "multi_label_classification" or len(self.labels) == 1:
            activation = "sigmoid"
        else:
            activation = "softmax"
        return ImageClassifierInfo(self.labels, activation)


def read_folder(path: Path, name: str) -> Folder:
    """Raises InvalidConfig for what is missing; `name` is the model's."""
    config = read_json(path / CONFIG, name)
    read_json(path / PREPROCESSOR, name)
    architecture = architecture_of(config, name)
    return Folder(path, config, architecture, labels_of(config), onnx_file(path))
