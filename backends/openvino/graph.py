"""What an OpenVINO model says of its tensors, and giving them the shapes that a config wants."""

from collections.abc import Sequence
from dataclasses import replace

import openvino as ov

from trivet.backends.api import DataType, InvalidConfig, Shape
from trivet.backends.api.completion import ModelTensor
from trivet.backends.api.extent import Extent, limited
from trivet.protos.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

_DATATYPES = {
    "bf16": DataType.BF16,
    "boolean": DataType.BOOL,
    "f16": DataType.FP16,
    "f32": DataType.FP32,
    "f64": DataType.FP64,
    "i16": DataType.INT16,
    "i32": DataType.INT32,
    "i64": DataType.INT64,
    "i8": DataType.INT8,
    "string": DataType.BYTES,
    "u16": DataType.UINT16,
    "u32": DataType.UINT32,
    "u64": DataType.UINT64,
    "u8": DataType.UINT8,
}


def tensors(
    config: ModelConfig, model: ov.Model, *, has_fixed_rows: bool = False
) -> tuple[list[ModelTensor], list[ModelTensor]]:
    """Inputs and outputs in their order, named as the config does where it names them; with
    `has_fixed_rows` as they are for those who ask. Raises InvalidConfig."""
    inputs = [_tensor(config, port, config.input, port.node) for port in model.inputs]
    outputs = [
        _tensor(config, port, config.output, port.node.input_value(0).get_node())
        for port in model.outputs
    ]
    if has_fixed_rows:
        return list(map(_with_any_rows, inputs)), list(map(_with_any_rows, outputs))
    return inputs, outputs


def make_batchable(config: ModelConfig, model: ov.Model) -> None:
    """Where a config asks for batches of a model that is made for one row, gives it a variable
    first dimension. Raises InvalidConfig where the graph does not follow."""
    ports = (*model.inputs, *model.outputs)
    if config.max_batch_size == 0 or not all(_rows(port) == 1 for port in ports):
        return
    try:
        model.reshape({port: _with_rows(port, ov.Dimension()) for port in model.inputs})
        grows = all(_rows(port) is None for port in model.outputs)
        reason = "its outputs do not grow with the batch"
    except RuntimeError as error:
        grows, reason = False, last_line(error)
    if not grows:
        raise InvalidConfig(
            f"model '{config.name}': max_batch_size is {config.max_batch_size}, but the model file "
            f"is made for batches of 1 and takes no others ({reason}); set max_batch_size: 0, or "
            "convert it with a variable batch dimension"
        )


def fix_rows(config: ModelConfig, model: ov.Model, rows: int) -> None:
    """Gives all inputs so many rows, for graphs that take no variable number. Raises
    InvalidConfig."""
    try:
        model.reshape({port: _with_rows(port, ov.Dimension(rows)) for port in model.inputs})
        reason = "" if all(_rows(port) == rows for port in model.outputs) else "its outputs do not"
    except RuntimeError as error:
        reason = last_line(error)
    if reason:
        raise InvalidConfig(
            f"model '{config.name}': the model cannot be given {rows} rows, its max_batch_size "
            f"(SKIP_OV_DYNAMIC_BATCHSIZE): {reason}"
        )


def take_dims(config: ModelConfig, model: ov.Model) -> None:
    """Gives the inputs the shapes of the config. Raises InvalidConfig."""
    given = {each.name: list(each.dims) for each in config.input if each.dims}
    batch = [-1] if config.max_batch_size else []
    shapes = {
        port: ov.PartialShape([*batch, *given[name]])
        for port in model.inputs
        for name in port.names & given.keys()
    }
    try:
        model.reshape(shapes)
    except RuntimeError as error:
        raise InvalidConfig(
            f"model '{config.name}': the model cannot take the dims of the config "
            f"(RESHAPE_IO_LAYERS): {last_line(error)}"
        ) from error


def last_line(error: Exception) -> str:
    """OpenVINO's texts begin with places in its sources and end with what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".")


def _tensor(
    config: ModelConfig,
    port: "ov.Output",
    given: Sequence[ModelInput] | Sequence[ModelOutput],
    node: "ov.Node",
) -> ModelTensor:
    names = sorted(port.names) or [node.friendly_name]
    wanted = [each.name for each in given if each.name in names]
    name = (wanted or names)[0]
    word = port.element_type.get_type_name()
    if word not in _DATATYPES:
        raise InvalidConfig(
            f"model '{config.name}': tensor '{name}' of the model file is {word}, a type that "
            "cannot be sent; convert the model with others"
        )
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return ModelTensor(name, _DATATYPES[word], None)
    dims: Shape = tuple(-1 if each.is_dynamic else each.get_length() for each in shape)
    return ModelTensor(name, _DATATYPES[word], dims, extents=limited(map(_extent, shape)))


def _extent(dimension: "ov.Dimension") -> Extent:
    if dimension.is_static:
        return Extent()
    high = dimension.max_length
    return Extent(dimension.min_length, high if high >= 0 else None)


def _rows(port: "ov.Output") -> int | None:
    """The size of the first dimension; None where it is variable, 0 where there is none."""
    shape = port.partial_shape
    if shape.rank.is_dynamic or len(shape) == 0:
        return 0
    return None if shape[0].is_dynamic else int(shape[0].get_length())


def _with_rows(port: "ov.Output", rows: "ov.Dimension") -> "ov.PartialShape":
    shape = ov.PartialShape(port.partial_shape)
    shape[0] = rows
    return shape


def _with_any_rows(tensor: ModelTensor) -> ModelTensor:
    assert tensor.shape, "its first dimension was set"
    return replace(tensor, shape=(-1, *tensor.shape[1:]), extents=())
