"""What `sequence_batching` in a complete config must fulfil."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from trivet.backends.api.supplied import supplied_inputs
from trivet.protos.model_config_pb2 import DataType, ModelConfig, ModelSequenceBatching

_Control = ModelSequenceBatching.Control
_CORRID_TYPES = {
    DataType.TYPE_UINT64,
    DataType.TYPE_INT64,
    DataType.TYPE_UINT32,
    DataType.TYPE_INT32,
    DataType.TYPE_STRING,
}


def sequence_faults(config: ModelConfig) -> Iterator[str]:
    """Everything that is wrong with the sequence batcher's settings."""
    if config.WhichOneof("scheduling_choice") != "sequence_batching":
        return
    batching = config.sequence_batching
    yield from _strategy_faults(config)
    yield from _name_faults(config)
    kinds: list[int] = []
    for given in batching.control_input:
        where = f"sequence_batching control_input '{given.name}'"
        if len(given.control) != 1:
            yield f"{where} must have exactly one control, got {len(given.control)}"
        for control in given.control:
            kinds.append(control.kind)
            yield from _control_faults(where, control)
    for kind in sorted(kinds):
        if kinds.count(kind) > 1:
            yield f"sequence_batching has control {_Control.Kind.Name(kind)} twice"
            return
    for state in batching.state:
        yield from _state_faults(config, state)


def _strategy_faults(config: ModelConfig) -> Iterator[str]:
    batching, largest = config.sequence_batching, max(config.max_batch_size, 1)
    utilization = batching.direct.minimum_slot_utilization
    if not 0 <= utilization <= 1:
        yield f"sequence_batching minimum_slot_utilization must be from 0 to 1, got {utilization}"
    if batching.WhichOneof("strategy_choice") != "oldest":
        return
    num_candidates = batching.oldest.max_candidate_sequences
    if num_candidates < 1:
        yield f"sequence_batching max_candidate_sequences must be 1 or more, got {num_candidates}"
    for size in batching.oldest.preferred_batch_size:
        if not 0 < size <= largest:
            yield (
                f"sequence batching preferred size must be positive and <= max_batch_size "
                f"{config.max_batch_size}, got {size}"
            )


def _name_faults(config: ModelConfig) -> Iterator[str]:
    seen = {tensor.name for tensor in config.input}
    for tensor in supplied_inputs(config):
        if not tensor.name:
            yield "sequence_batching has a control or state input without a name"
        elif tensor.name in seen:
            yield (
                f"input '{tensor.name}' is configured twice: control, state and batch inputs come "
                "from the server and are not listed in input"
            )
        seen.add(tensor.name)


def _control_faults(where: str, control: _Control) -> Iterator[str]:
    values = (control.int32_false_true, control.fp32_false_true, control.bool_false_true)
    given = [each for each in values if len(each)]
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        if control.data_type not in _CORRID_TYPES:
            known = ", ".join(DataType.Name(each) for each in sorted(_CORRID_TYPES))
            yield (
                f"{where} must have a data_type of {known}, got {DataType.Name(control.data_type)}"
            )
        if given:
            yield f"{where} carries the correlation id and must not have false_true values"
        return
    if len(given) != 1 or len(given[0]) != 2:
        yield (
            f"{where} must have exactly one of int32_false_true, fp32_false_true and "
            "bool_false_true, with two values: for false and for true"
        )


def _state_faults(config: ModelConfig, state: ModelSequenceBatching.State) -> Iterator[str]:
    where = f"sequence_batching state '{state.input_name}'"
    if not state.output_name:
        yield f"{where} has no output_name"
    if state.data_type == DataType.TYPE_INVALID:
        yield f"{where} must specify a data_type"
    if any(dim == 0 or dim < -1 for dim in state.dims):
        yield f"{where} has dims {list(state.dims)}; dimensions are positive, or -1 for any size"
    if state.use_growable_memory and not state.use_same_buffer_for_input_output:
        yield f"{where}: use_growable_memory needs use_same_buffer_for_input_output"
    if state.use_same_buffer_for_input_output and state.data_type == DataType.TYPE_STRING:
        yield f"{where}: use_same_buffer_for_input_output is for numbers, not for TYPE_STRING"
    if config.model_transaction_policy.decoupled:
        yield f"{where}: a decoupled model cannot have implicit state; keep it in the model"
    if len(state.initial_state) > 1:
        yield f"{where} must have at most one initial_state, got {len(state.initial_state)}"
    for initial in state.initial_state:
        yield from _initial_faults(where, state, initial)


def _initial_faults(
    where: str, state: ModelSequenceBatching.State, initial: ModelSequenceBatching.InitialState
) -> Iterator[str]:
    if initial.WhichOneof("state_data") is None:
        yield f"{where}: initial_state needs zero_data or data_file"
    if initial.data_type != state.data_type:
        yield (
            f"{where}: initial_state has data_type {DataType.Name(initial.data_type)}, but the "
            f"state has {DataType.Name(state.data_type)}"
        )
    dims, limits = list(initial.dims), list(state.dims)
    fits = len(dims) == len(limits) and all(
        limit in (-1, dim) for dim, limit in zip(dims, limits, strict=True)
    )
    if not fits or any(dim < 1 for dim in dims):
        yield f"{where}: initial_state has dims {dims}, which do not fit the state's {limits}"
    path = PurePosixPath(initial.data_file)
    if path.is_absolute() or ".." in path.parts:
        yield f"{where}: data_file '{initial.data_file}' must lie inside initial_state/"
