"""Tensors of a model that no client sends or gets: the schedulers supply them. Pure.

Control inputs and states of sequences, and the batch inputs of ragged batches. They are not in the
config's `input` and `output`, but the model file has them, and instances are given them.
"""

from collections.abc import Iterator

from trivet.protos.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelOutput,
    ModelSequenceBatching,
)

_Control = ModelSequenceBatching.Control


def instance_config(config: ModelConfig) -> ModelConfig:
    """The config as an instance sees it: with supplied tensors among its inputs and outputs."""
    extended = ModelConfig()
    extended.CopyFrom(config)
    extended.input.extend(supplied_inputs(config))
    extended.output.extend(supplied_outputs(config))
    return extended


def supplied_inputs(config: ModelConfig) -> Iterator[ModelInput]:
    """Control inputs, states and batch inputs, in this order."""
    for given in config.sequence_batching.control_input:
        if given.control:
            yield ModelInput(name=given.name, data_type=control_type(given.control[0]), dims=[1])
    for state in config.sequence_batching.state:
        yield ModelInput(name=state.input_name, data_type=state.data_type, dims=state.dims)
    for batch_input in config.batch_input:
        for name in batch_input.target_name:
            yield ModelInput(name=name, data_type=batch_input.data_type, dims=[-1])


def supplied_outputs(config: ModelConfig) -> Iterator[ModelOutput]:
    """States that clients do not see."""
    visible = {output.name for output in config.output}
    for state in config.sequence_batching.state:
        if state.output_name not in visible:
            yield ModelOutput(name=state.output_name, data_type=state.data_type, dims=state.dims)


def control_type(control: _Control) -> DataType:
    """The datatype of a control input: given for the correlation id, else that of its values."""
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        return control.data_type
    if control.fp32_false_true:
        return DataType.TYPE_FP32
    return DataType.TYPE_BOOL if control.bool_false_true else DataType.TYPE_INT32
