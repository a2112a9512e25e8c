"""The tensor datatypes: protocol name, config name, numpy dtype and size of each."""

from enum import Enum
from typing import cast

import ml_dtypes
import numpy as np

from trivet.protos import model_config_pb2 as pb


class DataType(Enum):
    """A tensor's element type; the value is its name in the KServe v2 protocol."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    # Enum members hash by name through a Python-level __hash__; identity is as good and free.
    __hash__ = object.__hash__

    dtype: np.dtype[np.generic]
    size: int
    """Bytes of one element; 0 for BYTES, whose elements have lengths of their own."""
    config_name: str
    """The name in config.pbtxt: TYPE_FP32, and TYPE_STRING for BYTES."""

    @classmethod
    def from_numpy(cls, dtype: np.dtype[np.generic]) -> "DataType":
        """The datatype of a numpy dtype; object, bytes and str arrays are BYTES."""
        if dtype.kind in "OSU":
            return cls.BYTES
        found = _BY_DTYPE.get(dtype)
        if found is None:
            raise ValueError(f"numpy dtype {dtype} has no tensor datatype")
        return found

    @classmethod
    def from_config(cls, value: int) -> "DataType":
        """The datatype of a config's `data_type` number; raises ValueError for TYPE_INVALID."""
        name = pb.DataType.Name(value).removeprefix("TYPE_")
        if name == "INVALID":
            raise ValueError("data_type is not set")
        return cls.BYTES if name == "STRING" else cls(name)

    def to_config(self) -> pb.DataType:
        """The number for a config's `data_type`."""
        # The stubs give Value an int, but fields want the enum's own type.
        return cast(pb.DataType, pb.DataType.Value(self.config_name))


def _describe(datatype: DataType) -> tuple[np.dtype[np.generic], int]:
    if datatype is DataType.BYTES:
        return np.dtype(object), 0
    if datatype is DataType.BF16:
        return np.dtype(ml_dtypes.bfloat16), 2
    name = datatype.value.lower().replace("fp", "float")
    dtype: np.dtype[np.generic] = np.dtype(name)
    return dtype, dtype.itemsize


for _datatype in DataType:
    _datatype.dtype, _datatype.size = _describe(_datatype)
    _short = "STRING" if _datatype is DataType.BYTES else _datatype.value
    _datatype.config_name = f"TYPE_{_short}"

_BY_DTYPE = {datatype.dtype: datatype for datatype in DataType}
BY_NAME = {datatype.value: datatype for datatype in DataType}
