"""Which backend computes a flavour whose file is data: it runs nothing when it is read. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trivet.backends.mlflow.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Native:
    """A file, and the word of the backend whose kind it is."""

    word: str
    file: str
    """Its path in the version folder."""


_BY_SUFFIX = {
    ".cb": "fil",
    ".cbm": "fil",
    ".json": "fil",
    ".keras": "keras",
    ".lgb": "fil",
    ".onnx": "onnxruntime",
    ".skops": "sklearn",
    ".txt": "fil",
    ".ubj": "fil",
    ".xgb": "fil",
}


def native_of(manifest: Manifest) -> Native | None:
    """The first flavour of them; None where all are code or pickles."""
    for name, find in _FILES.items():
        file = find(manifest.flavors[name]) if name in manifest.flavors else ""
        if not file:
            continue
        if name == "tensorflow" and not PurePosixPath(file).suffix:
            return Native("tensorflow", file)
        word = _BY_SUFFIX.get(PurePosixPath(file).suffix.lower())
        if word is not None:
            return Native(word, file)
    return None


def _data(flavor: Mapping[str, Any]) -> str:
    return str(flavor.get("data") or "")


def _pickled_model(flavor: Mapping[str, Any]) -> str:
    """By its name in MLflow; skops files are there, too."""
    return str(flavor.get("pickled_model") or "")


def _tensorflow(flavor: Mapping[str, Any]) -> str:
    if flavor.get("saved_model_dir"):
        return str(flavor["saved_model_dir"])
    folder = _data(flavor)
    endings = {"keras": ".keras", "h5": ".h5"}
    return f"{folder}/model{endings.get(str(flavor.get('save_format')), '')}" if folder else ""


_FILES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "onnx": _data,
    "xgboost": _data,
    "lightgbm": _data,
    "catboost": _data,
    "sklearn": _pickled_model,
    "tensorflow": _tensorflow,
    "keras": _data,
}
"""By flavour: the path of its file."""
