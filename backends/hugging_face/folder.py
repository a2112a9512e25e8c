"""What the JSON and the names of the files in a folder say. Knows no tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from trivet.backends.api import About, InvalidConfig, LoadFailed, parameter
from trivet.backends.hugging_face.files import CONFIG, ONNX_PATHS
from trivet.protos.model_config_pb2 import ModelConfig

DTYPES = ("float32", "float16", "bfloat16")
"""What weights may be computed in."""
_COMPUTES = ("torch", "onnx")


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A file's object; `name` is the model's. Raises InvalidConfig."""
    try:
        found = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InvalidConfig(f"model '{name}': the folder has no {path.name}") from None
    except orjson.JSONDecodeError as error:
        raise InvalidConfig(f"model '{name}': {path.name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidConfig(f"model '{name}': {path.name} must be a JSON object")
    return found


def architecture_of(config: Mapping[str, Any], name: str) -> str:
    """As the config names it. Raises InvalidConfig."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise InvalidConfig(f"model '{name}': {CONFIG} names no architectures")
    return str(architectures[0])


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a classifier, in the order of its scores."""
    given = config.get("id2label")
    if isinstance(given, dict) and given:
        return tuple(str(label) for _, label in sorted(given.items(), key=_by_id))
    return tuple(f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2)))


def _by_id(item: tuple[str, object]) -> int:
    return int(item[0]) if item[0].isdecimal() else 0


def onnx_file(*folders: Path) -> Path | None:
    """The first that lies in one of them, at the top or in onnx/."""
    places = [each / path for each in folders for path in ONNX_PATHS]
    return next((place for place in places if place.exists()), None)


def has_weights(folder: Path) -> bool:
    """Whether torch has something to load."""
    names = ("*.safetensors", "pytorch_model*.bin")
    return any(any(folder.glob(name)) for name in names)


def compute_of(config: ModelConfig, folder: Path, onnx: Path | None) -> str:
    """What computes it, "torch" or "onnx": what the config says, or else torch where there are
    weights for it. Raises InvalidConfig."""
    is_for_torch = has_weights(folder)
    given = parameter(config, "compute") or ("torch" if is_for_torch else "onnx")
    if given not in _COMPUTES:
        raise InvalidConfig(
            f"model '{config.name}': parameter compute is '{given}'; it may be "
            f"{' or '.join(_COMPUTES)}"
        )
    if given == "onnx" and onnx is None:
        raise InvalidConfig(
            f"model '{config.name}': the folder has no model.onnx, at the top or in onnx/; "
            "without one leave out the parameter compute"
        )
    if given == "torch" and not is_for_torch:
        raise InvalidConfig(
            f"model '{config.name}': the folder has no .safetensors for torch; set the parameter "
            "compute to onnx, or leave it out"
        )
    return given


def dtype_name(config: Mapping[str, Any], wanted: str, *, is_gpu: bool) -> str:
    """What the weights are computed in: `wanted`, or on a GPU what config.json says. On a CPU half
    precision is slow on most machines, and other numbers on all."""
    own = config.get("dtype") or config.get("torch_dtype")
    return wanted or (str(own) if is_gpu and own in DTYPES else "float32")


def number_of(config: ModelConfig, name: str, usual: int) -> int:
    """A parameter of the config, from 1 on. Raises InvalidConfig."""
    text = parameter(config, name)
    if not text:
        return usual
    if not text.isdecimal() or int(text) < 1:
        raise InvalidConfig(
            f"model '{config.name}': parameter {name} is '{text}'; it must be a number from 1 on"
        )
    return int(text)


def lacking(about: About, error: ModuleNotFoundError) -> LoadFailed:
    """A package that would compute the model is not installed."""
    package = (error.name or "").split(".")[0]
    fix = about.install if package in about.packages else package
    return LoadFailed(
        f"backend '{about.word}' needs the package '{package}', which is not installed: "
        f"pip install {fix}"
    )
