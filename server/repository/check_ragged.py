"""What `allow_ragged_batch`, `batch_input` and `batch_output` in a complete config must fulfil."""

from collections.abc import Iterator, Sequence

from trivet.backends.api import About, parameter
from trivet.protos.model_config_pb2 import BatchInput, BatchOutput, DataType, ModelConfig

_TYPES = {DataType.TYPE_INT32, DataType.TYPE_INT64, DataType.TYPE_FP32}


def ragged_faults(config: ModelConfig, about: About | None = None) -> Iterator[str]:
    """Everything that is wrong with the tensors of ragged batches."""
    ragged = [tensor for tensor in config.input if tensor.allow_ragged_batch]
    for tensor in ragged:
        where = f"input '{tensor.name}' with allow_ragged_batch"
        if config.max_batch_size < 1:
            yield f"{where} needs a max_batch_size of 1 or more"
        if tensor.data_type == DataType.TYPE_STRING:
            yield f"{where} must hold numbers, not TYPE_STRING"
        if tensor.HasField("reshape"):
            yield f"{where} cannot have a reshape"
    for given in config.batch_input:
        yield from _batch_input_faults(config, given)
    for wanted in config.batch_output:
        yield from _batch_output_faults(config, wanted)
    joins_requests = about is None or about.joins_requests
    isolation = parameter(config, "isolation", about.usual_isolation if about else "none")
    has_any = ragged or config.batch_input or config.batch_output
    if isolation == "process" and joins_requests and has_any:
        yield "ragged batches are not offered with parameter isolation 'process'"


def _batch_input_faults(config: ModelConfig, given: BatchInput) -> Iterator[str]:
    where = f"batch_input {BatchInput.Kind.Name(given.kind)}"
    yield from _name_faults(config, where, given.target_name, given.source_input)
    if given.data_type not in _TYPES:
        known = ", ".join(DataType.Name(each) for each in sorted(_TYPES))
        yield (f"{where} must have a data_type of {known}, got {DataType.Name(given.data_type)}")
    inputs = {tensor.name for tensor in config.input}
    for name in inputs.intersection(given.target_name):
        yield f"{where}: target_name '{name}' comes from the server and must not be in input too"


def _batch_output_faults(config: ModelConfig, wanted: BatchOutput) -> Iterator[str]:
    where = f"batch_output {BatchOutput.Kind.Name(wanted.kind)}"
    yield from _name_faults(config, where, wanted.target_name, wanted.source_input)
    outputs = {tensor.name for tensor in config.output}
    for name in set(wanted.target_name) - outputs:
        yield f"{where}: target_name '{name}' is no output of the model"


def _name_faults(
    config: ModelConfig, where: str, targets: Sequence[str], sources: Sequence[str]
) -> Iterator[str]:
    if config.max_batch_size < 1:
        yield f"{where} needs a max_batch_size of 1 or more"
    if len(targets) != 1:
        yield f"{where} must have exactly one target_name, got {list(targets)}"
    if len(sources) != 1:
        yield f"{where} must have exactly one source_input, got {list(sources)}"
    for name in set(sources) - {tensor.name for tensor in config.input}:
        yield f"{where}: source_input '{name}' is no input of the model"
