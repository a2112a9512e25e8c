"""Raw binary requests: the body is the one input's bytes, and the model says what they mean."""

import struct
from math import prod

from trivet.backends.api import DataType, InferRequest, InvalidRequest, Shape, Signature, TensorSpec
from trivet.server.http.plan import ALL_BINARY
from trivet.server.http.tensors import Body, Decoded, tensor_from_raw
from trivet.server.protocol.inputs import byte_size, check_byte_size

_LENGTH = struct.Struct("<I")


def decode_raw(body: Body, signature: Signature, model: str, version: int | str | None) -> Decoded:
    """The request of a body without a JSON part. All outputs are wanted as binary data.

    Raises InvalidRequest where the model's inputs do not tell what the bytes are.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"Raw request must only have 1 input (found 1) to be deduced but got "
            f"{len(signature.inputs)} inputs in '{model}' model configuration"
        )
    (spec,) = signature.inputs.values()
    raw: Body = body
    shape: Shape = spec.dims
    if spec.datatype is DataType.BYTES:
        if spec.dims != (1,):
            raise InvalidRequest(
                f"For BYTE datatype raw input '{spec.name}', the model must have input shape [1]"
            )
        raw = _LENGTH.pack(len(body)) + body
    else:
        shape = _deduced(spec, len(body))
    if signature.batching:
        shape = (1, *shape)
    check_byte_size(spec.name, byte_size(spec.datatype, shape), len(raw), model)
    tensor = tensor_from_raw(spec.name, spec.datatype, shape, raw, model)
    return Decoded(InferRequest(model, version, "", {spec.name: tensor}), ALL_BINARY)


def _deduced(spec: TensorSpec, size_bytes: int) -> Shape:
    variable = [axis for axis, dim in enumerate(spec.dims) if dim < 0]
    if len(variable) > 1:
        raise InvalidRequest(
            f"The shape of the raw input '{spec.name}' can not be deduced because there are more "
            "than one variable-sized dimension"
        )
    dims = list(spec.dims)
    row_bytes = prod(dim for dim in dims if dim >= 0) * spec.datatype.size
    if variable and row_bytes:
        dims[variable[0]] = size_bytes // row_bytes
    return tuple(dims)
