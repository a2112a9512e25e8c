"""What an MLmodel file says: flavours, and the signature as tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api import DataType, LoadFailed
from trivet.backends.api.completion import ModelTensor
from trivet.backends.api.datatype import BY_NAME

MAX_BYTES = 1 << 20
_COLUMN_TYPES = {
    "boolean": DataType.BOOL,
    "integer": DataType.INT32,
    "long": DataType.INT64,
    "float": DataType.FP32,
    "double": DataType.FP64,
    "string": DataType.BYTES,
    "binary": DataType.BYTES,
}
PYTHON_FUNCTION = "python_function"


@dataclass(frozen=True, slots=True)
class Fields:
    """One side of a signature."""

    tensors: tuple[ModelTensor, ...] = ()
    are_columns: bool = False
    """Of a table; else tensors of any shape."""
    are_named: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """An MLmodel file."""

    flavors: Mapping[str, Mapping[str, Any]]
    inputs: Fields
    outputs: Fields

    @property
    def code(self) -> str:
        """What it names to be run, beyond MLflow's own loaders; empty if nothing."""
        function = self.flavors.get(PYTHON_FUNCTION, {})
        loader = str(function.get("loader_module", ""))
        if loader and not loader.startswith("mlflow."):
            return f"loader_module '{loader}'"
        keys = ("code", "model_code_path")
        return next((f"{key} '{function[key]}'" for key in keys if function.get(key)), "")


def read_manifest(path: Path, model_name: str) -> Manifest:
    """Raises LoadFailed."""
    where = f"model '{model_name}': '{path.name}'"
    if path.stat().st_size > MAX_BYTES:
        raise LoadFailed(f"{where} has more than {MAX_BYTES} bytes")
    found = _parse(path, where)
    flavors = found.get("flavors") if isinstance(found, dict) else None
    if not isinstance(flavors, dict) or not flavors:
        raise LoadFailed(f"{where} names no flavors; it is no file that MLflow wrote")
    wrong = [name for name, flavor in flavors.items() if not isinstance(flavor, dict | None)]
    if wrong:
        raise LoadFailed(f"{where}: the flavor '{wrong[0]}' is no mapping of keys to values")
    signature = found.get("signature") or {}
    try:
        return Manifest(
            {str(name): flavor or {} for name, flavor in flavors.items()},
            _fields(signature.get("inputs"), "input"),
            _fields(signature.get("outputs"), "predict"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadFailed(f"{where} has a signature that cannot be read: {error}") from error


def _parse(path: Path, where: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise LoadFailed(
            f"{where} needs the package 'pyyaml', which is not installed: "
            "pip install 'trivet[mlflow]'"
        ) from error
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise LoadFailed(f"{where} is no YAML: {reason}") from error


def _fields(text: str | None, usual_name: str) -> Fields:
    entries = json.loads(text) if text else []
    are_named = any(entry.get("name") is not None for entry in entries)
    names = [str(entry.get("name", f"{usual_name}_{i}")) for i, entry in enumerate(entries)]
    if len(entries) == 1 and not are_named:
        names = [usual_name]
    tensors = tuple(_tensor(*pair) for pair in zip(names, entries, strict=True))
    are_columns = any(entry["type"] != "tensor" for entry in entries)
    return Fields(tensors, are_columns, are_named)


def _tensor(name: str, entry: Mapping[str, Any]) -> ModelTensor:
    if entry["type"] != "tensor":
        datatype = _COLUMN_TYPES.get(entry["type"])
        if datatype is None:
            raise ValueError(f"column '{name}' is of type {entry['type']}, which no tensor has")
        return ModelTensor(name, datatype, (-1, 1))
    spec = entry["tensor-spec"]
    return ModelTensor(name, _numpy_type(spec["dtype"]), tuple(int(each) for each in spec["shape"]))


def _numpy_type(name: str) -> DataType:
    if name in ("str", "object", "bytes") or name.startswith(("<U", "str")):
        return DataType.BYTES
    return BY_NAME[name.upper().replace("FLOAT", "FP")]
