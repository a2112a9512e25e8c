"""Triton's names and numbers of datatypes, and BYTES in wire form, for user code."""

import numpy as np

from trivet.backends.api import DataType, PackedBytes

TRITON_STRING_TO_NUMPY: dict[str, type] = {
    each.config_name: each.dtype.type
    for each in DataType
    if each not in (DataType.BYTES, DataType.BOOL)
} | {"TYPE_BOOL": bool, "TYPE_STRING": np.object_}


def triton_string_to_numpy(triton_type_string: str) -> type:
    """The numpy type of a config's data_type: "TYPE_FP32" -> numpy.float32."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> type:
    """The numpy type of a datatype number, as `Tensor.triton_dtype` gives it."""
    return DataType.from_config(data_type).dtype.type


def numpy_to_triton_type(data_type: "np.dtype[np.generic] | type") -> int:
    """The datatype number of a numpy type."""
    return int(DataType.from_numpy(np.dtype(data_type)).to_config())


def serialize_byte_tensor(input_tensor: np.ndarray) -> bytes | None:
    """BYTES elements in wire form, row by row; None for an empty array."""
    if input_tensor.size == 0 or input_tensor.dtype.kind not in "OS":
        return None
    return bytes(PackedBytes.pack(to_text_objects(input_tensor)).blob)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> np.ndarray:
    """The elements of wire form, as a flat object array of bytes."""
    return PackedBytes.parse(memoryview(encoded_tensor)).objects()


def to_text_objects(array: np.ndarray) -> np.ndarray:
    """The array with every element bytes or str; others become their text, as in Triton."""
    objects = array.astype(object, copy=False)
    if all(isinstance(element, (bytes, str)) for element in objects.flat):
        return objects
    texts = np.empty(objects.shape, dtype=object)
    for index, element in np.ndenumerate(objects):
        texts[index] = element if isinstance(element, (bytes, str)) else str(element)
    return texts
