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
    ".h5": "keras",
    ".json": "fil",
    ".keras": "keras",
    ".lgb": "fil",
    ".onnx": "onnxruntime",
    ".skops": "sklearn",
    ".txt": "fil",
    ".ubj": "fil",
    ".xgb": "fil",
}


def native_of(manifest: Manifest, is_there: Callable[[str], bool]) -> Native | None:
    """The first flavour of them; None where all are code or pickles. `is_there`: whether a path in
    the folder is one."""
    for name, find in _FILES.items():
        paths = find(manifest.flavors[name]) if name in manifest.flavors else ()
        known = [native for path in paths if (native := _native(name, path)) is not None]
        if known:
            return next((each for each in known if is_there(each.file)), known[0])
    return None


def _native(flavor: str, path: str) -> Native | None:
    suffix = PurePosixPath(path).suffix.lower()
    if flavor == "tensorflow" and not suffix:
        return Native("tensorflow", path)
    word = _BY_SUFFIX.get(suffix)
    return Native(word, path) if word is not None else None


def _data(flavor: Mapping[str, Any]) -> tuple[str, ...]:
    return _named(flavor, "data")


def _pickled_model(flavor: Mapping[str, Any]) -> tuple[str, ...]:
    """By its name in MLflow; skops files are there, too."""
    return _named(flavor, "pickled_model")


def _tensorflow(flavor: Mapping[str, Any]) -> tuple[str, ...]:
    """A SavedModel, or what Keras writes: by its version, whatever `save_format` says."""
    endings = (".keras", ".h5", "")
    of_keras = (f"{folder}/model{each}" for folder in _data(flavor) for each in endings)
    return (*_named(flavor, "saved_model_dir"), *of_keras)


def _named(flavor: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return (str(flavor[key]),) if flavor.get(key) else ()


_FILES: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, ...]]] = {
    "onnx": _data,
    "xgboost": _data,
    "lightgbm": _data,
    "catboost": _data,
    "sklearn": _pickled_model,
    "tensorflow": _tensorflow,
    "keras": _data,
}
"""By flavour: the paths that its file may have."""
