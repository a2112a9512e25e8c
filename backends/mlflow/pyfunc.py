"""Models that MLflow itself loads: pickles and code, in a process of their own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivet.backends.api import (
    BackendFailed,
    Batch,
    DataType,
    InvalidConfig,
    LoadFailed,
    Shape,
    Signature,
)
from trivet.backends.api.completion import complete_config
from trivet.backends.api.texts import gather_text, to_bytes
from trivet.backends.mlflow.manifest import Manifest
from trivet.backends.tabular.rows import Rows
from trivet.protos.model_config_pb2 import ModelConfig

_FRAMEWORK = "MLflow"


def complete_pyfunc(config: ModelConfig, manifest: Manifest) -> ModelConfig:
    """From the signature. Raises InvalidConfig."""
    for kind, given, fields in (
        ("inputs", config.input, manifest.inputs),
        ("outputs", config.output, manifest.outputs),
    ):
        if not fields.tensors and not given:
            raise InvalidConfig(
                f"model '{config.name}': its signature has no {kind}; log the model with "
                "signature=mlflow.models.infer_signature(inputs, outputs), or list them in "
                "config.pbtxt"
            )
    if not manifest.inputs.tensors or not manifest.outputs.tensors:
        return config
    return complete_config(config, manifest.inputs.tensors, manifest.outputs.tensors)


class PyfuncInstance:
    """One instance."""

    def __init__(self, model: Any, config: ModelConfig, manifest: Manifest) -> None:
        self._model = model
        self._signature = Signature.from_config(config)
        columns = [each.name for each in manifest.inputs.tensors]
        is_table = manifest.inputs.are_columns and manifest.inputs.are_named
        self._table = Rows.of(self._signature, columns, _FRAMEWORK) if is_table else None
        self._is_mapping = manifest.inputs.are_named
        self._is_open = True

    @classmethod
    def open(cls, folder: Path, config: ModelConfig, manifest: Manifest) -> "PyfuncInstance":
        """Runs what the folder says. Raises LoadFailed."""
        # Usage is told to nobody from here.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        try:
            from mlflow import pyfunc

            return cls(pyfunc.load_model(str(folder)), config, manifest)
        except ModuleNotFoundError as error:
            extra = ": pip install 'trivet[mlflow]'" if error.name == "mlflow" else ""
            raise LoadFailed(
                f"model '{config.name}' needs the module '{error.name}', which is not installed "
                f"here{extra}"
            ) from error
        # Its code and pickles raise what they like.
        except Exception as error:
            raise LoadFailed(
                f"model '{config.name}' could not be loaded by MLflow: {type(error).__name__}: "
                f"{error}"
            ) from error

    def execute(self, batch: Batch) -> None:
        given = self._table.gather(batch) if self._table is not None else self._tensors(batch)
        batch.mark_gathered()
        result = self._model.predict(given)
        batch.mark_computed()
        names = list(self._signature.outputs)
        for place, (name, spec) in enumerate(self._signature.outputs.items()):
            if batch.wants(name):
                values = _pick(result, names, place)
                is_text = spec.datatype is DataType.BYTES
                values = to_bytes(values) if is_text else values.astype(spec.datatype.dtype)
                batch.scatter(name, self._shaped(values, spec.model_dims))

    def _shaped(self, values: np.ndarray, dims: Shape) -> np.ndarray:
        """A table's column has no dimension beside the rows'."""
        is_so = not self._signature.batching or values.ndim == len(dims) + 1
        return values if is_so else values.reshape(len(values), *dims)

    def _tensors(self, batch: Batch) -> object:
        found = {name: self._values(batch, name) for name in self._signature.inputs}
        return found if self._is_mapping else next(iter(found.values()))

    def _values(self, batch: Batch, name: str) -> np.ndarray | None:
        is_text = self._signature.inputs[name].datatype is DataType.BYTES
        return gather_text(batch, name, _FRAMEWORK) if is_text else batch.gather(name)

    def is_ready(self) -> bool:
        return self._is_open

    def close(self) -> None:
        self._is_open = False
        self._model = None


def _pick(result: Any, names: Sequence[str], place: int) -> np.ndarray:
    """One output of what `predict` returned: a table, tensors by name, or one tensor."""
    name = names[place]
    if isinstance(result, Mapping) and name in result:
        return np.asarray(result[name])
    if hasattr(result, "columns"):
        columns = [str(each) for each in result.columns]
        if name in columns:
            return np.asarray(result.iloc[:, columns.index(name)])
        if len(names) > 1:
            return np.asarray(result.iloc[:, place])
    elif len(names) > 1:
        raise BackendFailed(
            f"the model returned a {type(result).__name__}, in which there is no output '{name}'"
        )
    return np.asarray(result)
