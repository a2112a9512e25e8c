"""Finds the backend of a model: by word as a built-in or an entry point, imported when used."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import cast

import trivet.backends
from trivet.backends.api import Backend, InvalidConfig, LoadFailed, ModelFiles
from trivet.protos.model_config_pb2 import ModelConfig

ENTRY_POINT_GROUP = "trivet.backends"
"""Third-party backends: entry point name = backend word, value = a Backend or a factory of one."""

PLATFORMS = {
    "ensemble": "ensemble",
    "onnxruntime_onnx": "onnxruntime",
    "python": "python",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "torch_aoti": "pytorch",
}
"""Triton's older `platform` field."""

# In this order of preference where a folder has several: weights may lie beside a model.py.
_SUFFIXES = {".onnx": "onnxruntime", ".plan": "tensorrt", ".pt2": "pytorch", ".pt": "pytorch"}
_PYTHON_FILE = "model.py"
_WEIGHT_FILES = ("model.pt", "model.safetensors")

# Words whose module is not trivet.backends.<word>.backend.
_MODULES = {
    "ensemble": "trivet.ensembles.backend",
    "identity": "trivet.backends.testing.identity",
    "repeat": "trivet.backends.testing.repeat",
    "square": "trivet.backends.testing.square",
}
_EXTRAS = {
    "onnxruntime": "onnx",
    "tensorrt": "tensorrt",
    "torch": "torch",
}
"""Framework package -> the pip extra of trivet that installs it."""

_WORD = re.compile(r"(?!api$)[a-z_][a-z0-9_]*")  # trivet.backends.api is the contract


@dataclass(frozen=True, slots=True)
class FoundBackend:
    """A backend and the word it was found by."""

    word: str
    backend: Backend


def find_backend(config: ModelConfig, files: ModelFiles) -> FoundBackend:
    """The backend that a config, or failing that the version's files and name, ask for.

    Raises InvalidConfig when none is named or known, LoadFailed when its framework is missing.
    """
    word = choose_word(config, files)
    if word is not None:
        return FoundBackend(word, open_backend(word))
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        backend = _load_entry_point(entry_point)
        if backend.matches(files):
            return FoundBackend(entry_point.name, backend)
    raise InvalidConfig(
        f"model '{files.model_dir.name}': the config names no backend and neither the files of "
        f"version {files.version} nor the model's name tell it; set `backend` to one of "
        f"{known_words()}"
    )


def open_backend(word: str) -> Backend:
    """The backend of a word. Raises InvalidConfig for an unknown one, LoadFailed without its
    framework."""
    module = _built_in(word)
    if module is None:
        for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=word):
            return _load_entry_point(entry_point)
        raise InvalidConfig(f"unknown backend '{word}'; the known ones are {known_words()}")
    try:
        return cast("Backend", import_module(module).BACKEND)  # by convention of built-ins
    except ModuleNotFoundError as error:
        raise _missing_framework(word, error) from error


def known_words() -> list[str]:
    """The words that `open_backend` takes, without importing any backend."""
    words = {module.name for module in iter_modules(trivet.backends.__path__)} | _MODULES.keys()
    entry_words = {entry_point.name for entry_point in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted({word for word in words if _built_in(word)} | entry_words)


def choose_word(config: ModelConfig, files: ModelFiles) -> str | None:
    """The backend word: `backend`, `platform`, the model file's name, the model's name, or None.

    Raises InvalidConfig for an unknown platform.
    """
    if config.backend:
        return config.backend
    if config.platform:
        if config.platform not in PLATFORMS:
            raise InvalidConfig(
                f"unknown platform '{config.platform}'; the known ones are {sorted(PLATFORMS)}. "
                "Set `backend` instead"
            )
        return PLATFORMS[config.platform]
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    return next(_words_of_files(config, files), None)


def _words_of_files(config: ModelConfig, files: ModelFiles) -> Iterator[str]:
    if config.default_model_filename:
        path = Path(config.default_model_filename)
        yield from _words_of_name(path.suffix, files)
    elif (files.version_dir / _PYTHON_FILE).is_file():
        yield _word_of_python_file(files)
    for suffix, word in _SUFFIXES.items():
        if (files.version_dir / f"model{suffix}").exists():
            yield word
    for path in sorted(files.version_dir.glob("model.*")):
        yield from _words_of_name(path.suffix, files)
    yield from _words_of_name(Path(files.model_dir.name).suffix, files)


def _words_of_name(suffix: str, files: ModelFiles) -> Iterator[str]:
    """`model.onnx` and `model.identity` both say their backend."""
    if suffix == ".py":
        yield _word_of_python_file(files)
    elif suffix in _SUFFIXES:
        yield _SUFFIXES[suffix]
    elif _built_in(suffix[1:]) or entry_points(group=ENTRY_POINT_GROUP, name=suffix[1:]):
        yield suffix[1:]


def _word_of_python_file(files: ModelFiles) -> str:
    """A model.py beside weights is a PyTorch module unless written for the python backend."""
    source = files.version_dir / _PYTHON_FILE
    has_weights = any((files.version_dir / name).is_file() for name in _WEIGHT_FILES)
    if not has_weights or not source.is_file():
        return "python"
    text = source.read_text(encoding="utf-8", errors="replace")
    return "python" if "TritonPythonModel" in text else "pytorch"


def _built_in(word: str) -> str | None:
    """The module of a built-in backend's word, if there is one."""
    if not _WORD.fullmatch(word):
        return None
    module = _MODULES.get(word, f"trivet.backends.{word}.backend")
    try:
        return module if find_spec(module) else None
    except ModuleNotFoundError:
        return None


def _load_entry_point(entry_point: EntryPoint) -> Backend:
    try:
        found = entry_point.load()
    except ModuleNotFoundError as error:
        raise _missing_framework(entry_point.name, error) from error
    return cast(
        "Backend", found if hasattr(found, "open") and not isinstance(found, type) else found()
    )


def _missing_framework(word: str, error: ModuleNotFoundError) -> LoadFailed:
    package = (error.name or "").split(".")[0]
    extra = _EXTRAS.get(package)
    fix = f"pip install trivet[{extra}]" if extra else f"pip install {package}"
    return LoadFailed(
        f"backend '{word}' needs the package '{package}', which is not installed: {fix}"
    )
