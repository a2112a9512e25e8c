"""Fills a config with what a model file says about its tensors, and checks what was given. Pure.

Frameworks differ in how a file is read; what follows from its inputs and outputs does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trivet.backends.api.config import parameter
from trivet.backends.api.datatype import DataType
from trivet.backends.api.errors import InvalidConfig
from trivet.backends.api.extent import Extents, check_batch, check_dims, largest_batch
from trivet.backends.api.supplied import supplied_inputs, supplied_outputs
from trivet.backends.api.tensor import Shape
from trivet.protos.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

DEFAULT_MAX_BATCH_SIZE = 1024
"""Rows of a request, where neither config nor file limit them. They are computed in parts."""
DEFAULT_PARAMETER = "default_max_batch_size"
"""The config parameter in which the server tells a backend another number."""
IS_DEFAULT = "taken"
"""What that parameter holds afterwards, where the default is the largest batch. The server takes
it out."""
FIXED_DEFAULT_MAX_BATCH_SIZE = 4
"""Triton's, for batches that are always computed as one: of sequences, and ragged ones."""


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """An input or output as the model file declares it; -1 is a variable dimension.

    `shape` includes the batch dimension and is None where the file gives no rank.
    """

    name: str
    datatype: DataType
    shape: Shape | None
    optional: bool = False
    extents: Extents = ()
    """What the file says of the sizes of its variable dimensions."""


def complete_config(
    config: ModelConfig, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
) -> ModelConfig:
    """A copy of the config with inputs, outputs, max_batch_size and scheduler filled in.

    Given fields win and are checked. Batching is switched on when all tensors have a variable
    first dimension and nothing in the config says otherwise. Raises InvalidConfig.
    """
    completed = ModelConfig()
    completed.CopyFrom(config)
    inputs = _without(inputs, supplied_inputs(config))
    outputs = _without(outputs, supplied_outputs(config))
    if completed.max_batch_size == 0 and _can_batch(config, inputs, outputs):
        most = largest_batch(t.extents for t in (*inputs, *outputs))
        default = _default_max_batch_size(config)
        completed.max_batch_size = min(default, most or default)
        if DEFAULT_PARAMETER in config.parameters and completed.max_batch_size == default:
            completed.parameters[DEFAULT_PARAMETER].string_value = IS_DEFAULT
    check_batch(completed, {t.name: t.extents for t in (*inputs, *outputs)})
    if completed.max_batch_size > 1 and completed.WhichOneof("scheduling_choice") is None:
        completed.dynamic_batching.SetInParent()
    if not completed.input:
        completed.input.extend(ModelInput(name=t.name) for t in inputs if not t.optional)
    if not completed.output:
        completed.output.extend(ModelOutput(name=t.name) for t in outputs)
    _check_required(completed, inputs)
    _fill(completed, completed.input, inputs, "input")
    _fill(completed, completed.output, outputs, "output")
    return completed


def _default_max_batch_size(config: ModelConfig) -> int:
    default = int(parameter(config, DEFAULT_PARAMETER) or DEFAULT_MAX_BATCH_SIZE)
    is_ragged = any(tensor.allow_ragged_batch for tensor in config.input)
    if is_ragged or config.batch_input or config.HasField("sequence_batching"):
        return min(default, FIXED_DEFAULT_MAX_BATCH_SIZE)
    return default


def _without(
    tensors: Sequence[ModelTensor], supplied: Iterable[ModelInput | ModelOutput]
) -> list[ModelTensor]:
    """The tensors of the file that clients have to do with."""
    names = {tensor.name for tensor in supplied}
    return [tensor for tensor in tensors if tensor.name not in names]


def _can_batch(
    config: ModelConfig, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
) -> bool:
    """Whether the file can batch and no given dims are literal ones, as long as the model's own."""
    tensors = {tensor.name: tensor for tensor in (*inputs, *outputs)}
    if not tensors or any(not t.shape or t.shape[0] != -1 for t in tensors.values()):
        return False
    if any(t.extents and t.extents[0].low > 1 for t in tensors.values()):
        return False
    given: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    return not any(
        t.dims and t.name in tensors and len(_seen_by_model(t)) >= len(tensors[t.name].shape or ())
        for t in given
    )


def _check_required(config: ModelConfig, inputs: Sequence[ModelTensor]) -> None:
    given = {tensor.name for tensor in config.input}
    missing = [t.name for t in inputs if not t.optional and t.name not in given]
    if missing:
        raise InvalidConfig(
            f"model '{config.name}': the model file needs the inputs {missing}, which the config "
            f"does not list (it has {sorted(given)}); add them, or remove all inputs to have them "
            "filled in"
        )
    needed = {tensor.name for tensor in inputs if not tensor.optional}
    for tensor in config.input:
        if tensor.optional and tensor.name in needed:
            raise InvalidConfig(
                f"model '{config.name}': input '{tensor.name}' is optional in the config, but the "
                "model file has no default for it"
            )


def _fill(
    config: ModelConfig,
    given: Sequence[ModelInput] | Sequence[ModelOutput],
    declared: Sequence[ModelTensor],
    role: str,
) -> None:
    by_name = {tensor.name: tensor for tensor in declared}
    scattered = {name for each in config.batch_output for name in each.target_name}
    for tensor in given:
        found = by_name.get(tensor.name)
        if found is None:
            raise InvalidConfig(
                f"model '{config.name}': {role} '{tensor.name}' of the config is not in the model "
                f"file, whose {role}s are {list(by_name)}"
            )
        _fill_datatype(config, tensor, found, role)
        if isinstance(tensor, ModelInput) and tensor.allow_ragged_batch:
            # The model sees the batch's elements in one row, whatever dims clients use.
            continue
        if tensor.name in scattered:
            continue
        if found.shape is not None:
            dims = _without_batch(config, found, found.shape, role)
            _fill_dims(config, tensor, dims, role)
            check_dims(config, tensor.name, _seen_by_model(tensor), found.extents)
        elif not tensor.dims:
            raise InvalidConfig(
                f"model '{config.name}': the model file does not say the rank of {role} "
                f"'{tensor.name}'; give its dims in the config"
            )


def _fill_datatype(
    config: ModelConfig, tensor: ModelInput | ModelOutput, found: ModelTensor, role: str
) -> None:
    if tensor.data_type == 0:
        tensor.data_type = found.datatype.to_config()
        return
    given = DataType.from_config(tensor.data_type)
    if given is not found.datatype:
        raise InvalidConfig(
            f"model '{config.name}': {role} '{tensor.name}' has data_type {given.config_name} in "
            f"the config, but the model file has {found.datatype.config_name}"
        )


def _without_batch(config: ModelConfig, found: ModelTensor, shape: Shape, role: str) -> Shape:
    if config.max_batch_size == 0:
        return shape
    if not shape or shape[0] != -1:
        raise InvalidConfig(
            f"model '{config.name}': max_batch_size is {config.max_batch_size}, but {role} "
            f"'{found.name}' has shape {list(shape)} in the model file, without a variable first "
            "dimension; set max_batch_size: 0 or export the model with a variable batch dimension"
        )
    return shape[1:]


def _fill_dims(
    config: ModelConfig, tensor: ModelInput | ModelOutput, expected: Shape, role: str
) -> None:
    if not tensor.dims:
        # A config cannot tell "no dims" from "not given", so clients send a scalar as [1].
        tensor.dims.extend(expected or (1,))
    if not expected and not tensor.HasField("reshape") and list(tensor.dims) == [1]:
        tensor.reshape.SetInParent()
    given = _seen_by_model(tensor)
    fits = len(given) == len(expected) and all(
        want in (-1, got) for got, want in zip(given, expected, strict=True)
    )
    if not fits:
        batch = " without the batch dimension" if config.max_batch_size else ""
        raise InvalidConfig(
            f"model '{config.name}': {role} '{tensor.name}' has dims {list(given)} in the config, "
            f"but the model file has {list(expected)}{batch}"
        )


def _seen_by_model(tensor: ModelInput | ModelOutput) -> Shape:
    return tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
