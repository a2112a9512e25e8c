"""An object with scikit-learn's methods as a model: what it takes, what it gives, running it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trivet.backends.api import Batch, DataType, InvalidConfig, Signature
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.texts import to_bytes
from trivet.backends.tabular.rows import Rows
from trivet.protos.model_config_pb2 import ModelConfig

INPUT = "input"
USUAL_METHODS = ("predict", "predict_proba")
METHODS = (*USUAL_METHODS, "decision_function", "predict_log_proba", "score_samples", "transform")
"""What an output may be named: it is what the method of that name returns."""


def columns_of(model: Any) -> tuple[str, ...]:
    """The names of the columns that it was fitted with, if it had any."""
    return tuple(str(name) for name in getattr(model, "feature_names_in_", ()))


def complete_estimator(config: ModelConfig, model: Any, framework: str) -> ModelConfig:
    """Inputs from what the model was fitted with, outputs from what it makes of one row.

    Raises InvalidConfig.
    """
    if config.input:
        return _complete(config, model, framework, _given_inputs(config, model))
    width = getattr(model, "n_features_in_", None)
    columns = columns_of(model)
    if width is None and not columns:
        raise InvalidConfig(
            f"model '{config.name}': the model does not say what it takes; list its input in "
            "config.pbtxt (a model of texts: data_type TYPE_STRING, dims [ 1 ])"
        )
    matrix = [ModelTensor(INPUT, DataType.FP64, (-1, width or len(columns)))]
    try:
        return _complete(config, model, framework, matrix)
    except InvalidConfig:
        if not columns:
            raise
    # One that tells its columns apart by name takes no matrix.
    apart = [ModelTensor(name, DataType.FP64, (-1, 1)) for name in columns]
    return _complete(config, model, framework, apart)


def _given_inputs(config: ModelConfig, model: Any) -> list[ModelTensor]:
    width = getattr(model, "n_features_in_", None) or -1
    tensors = []
    for given in config.input:
        datatype = DataType.from_config(given.data_type) if given.data_type else DataType.FP64
        is_column = len(config.input) > 1 or datatype is DataType.BYTES or width == 1
        tensors.append(ModelTensor(given.name, datatype, (-1, 1 if is_column else width)))
    return tensors


def _complete(
    config: ModelConfig, model: Any, framework: str, inputs: Sequence[ModelTensor]
) -> ModelConfig:
    without_outputs = ModelConfig()
    without_outputs.CopyFrom(config)
    del without_outputs.output[:]
    seen = Signature.from_config(complete_config(without_outputs, inputs, []))
    rows = Rows.of(seen, columns_of(model), framework)
    names = _methods(config, model)
    outputs = [_output(config, model, name, rows) for name in names]
    return complete_config(config, inputs, outputs)


def _methods(config: ModelConfig, model: Any) -> list[str]:
    usual = [name for name in USUAL_METHODS if hasattr(model, name)]
    names = [output.name for output in config.output] or usual or ["transform"]
    for name in names:
        if name not in METHODS or not hasattr(model, name):
            has = [each for each in METHODS if hasattr(model, each)]
            raise InvalidConfig(
                f"model '{config.name}': an output is named after the method that it comes from, "
                f"but {type(model).__name__} has no '{name}'; it has {has}"
            )
    return names


def _output(config: ModelConfig, model: Any, name: str, rows: Rows) -> ModelTensor:
    try:
        values = _array(getattr(model, name)(rows.probe()))
    # Whatever the model's own code raises at a row of zeros.
    except Exception as error:
        given = next((each for each in config.output if each.name == name), None)
        if given is not None and given.data_type and given.dims:
            dims = given.reshape.shape if given.HasField("reshape") else given.dims
            return ModelTensor(name, DataType.from_config(given.data_type), (-1, *dims))
        raise InvalidConfig(
            f"model '{config.name}': {name} of a row of zeros, by which its outputs are learnt, "
            f"failed ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
            "List the inputs in config.pbtxt, one for each column where the model knows them by "
            "name, or the outputs with data_type and dims"
        ) from error
    return ModelTensor(name, DataType.from_numpy(values.dtype), (-1, *values.shape[1:]))


def _array(values: Any) -> np.ndarray:
    """Also of a sparse matrix."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


class EstimatorInstance:
    """One instance."""

    def __init__(self, model: Any, config: ModelConfig, framework: str) -> None:
        """`config`: a complete one."""
        signature = Signature.from_config(config)
        self._methods: Mapping[str, Any] = {
            name: getattr(model, name) for name in signature.outputs
        }
        self._outputs = signature.outputs
        self._rows = Rows.of(signature, columns_of(model), framework)
        self._is_open = True

    def execute(self, batch: Batch) -> None:
        rows = self._rows.gather(batch)
        batch.mark_gathered()
        wanted = [name for name in self._methods if batch.wants(name)]
        found = {name: _array(self._methods[name](rows)) for name in wanted}
        batch.mark_computed()
        for name, values in found.items():
            datatype = self._outputs[name].datatype
            is_text = datatype is DataType.BYTES
            batch.scatter(name, to_bytes(values) if is_text else values.astype(datatype.dtype))

    def is_ready(self) -> bool:
        return self._is_open

    def close(self) -> None:
        self._is_open = False
        self._methods = {}
