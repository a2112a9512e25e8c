"""The tensor of user code."""

import sys
from typing import Any

import numpy as np

from trivet.backends.api import DataType, PackedBytes
from trivet.backends.api import Tensor as ApiTensor
from trivet.backends.api.dlpack import retyped_bfloat16
from trivet.backends.python.model_api.datatypes import to_text_objects
from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.fields import text_in

_CPU_DEVICE = 1
"""DLPack's kDLCPU."""


class Tensor:
    """A named array in host memory."""

    __slots__ = ("_array", "_name", "_source")

    _array: np.ndarray | None
    _name: str
    _source: ApiTensor | None

    def __init__(self, name: str, numpy_array: np.ndarray) -> None:
        if not isinstance(name, str):
            raise TritonModelException(f"a tensor's name must be a str, not {type(name).__name__}")
        if not isinstance(numpy_array, (np.ndarray, np.generic)):
            raise TritonModelException(
                f"tensor '{name}' needs a numpy array, not {type(numpy_array).__name__}"
            )
        try:
            DataType.from_numpy(numpy_array.dtype)
        except ValueError as error:
            raise TritonModelException(f"tensor '{name}': {error}") from None
        self._name = name
        self._array = np.asarray(numpy_array)
        self._source = None

    @classmethod
    def from_dlpack(cls, name: str, tensor: Any) -> "Tensor":
        """From an object with `__dlpack__` or a DLPack capsule; device memory is copied here."""
        return cls(name, _host_array(name, tensor))

    def name(self) -> str:
        return self._name

    def shape(self) -> list[int]:
        return list(self.as_numpy().shape if self._source is None else self._source.shape)

    def size_bytes(self) -> int:
        """What the values take, about: of texts as objects, the references."""
        return self.as_numpy().nbytes if self._source is None else self._source.nbytes

    def triton_dtype(self) -> int:
        """The datatype's number: 11 for TYPE_FP32, as in the model configuration."""
        return int(self._datatype().to_config())

    def as_numpy(self) -> np.ndarray:
        """The values; BYTES as an object array of bytes."""
        if self._array is None:
            assert self._source is not None
            self._array = _values(self._source)
        return self._array

    def is_cpu(self) -> bool:
        return True

    def to_dlpack(self) -> Any:
        """A DLPack capsule on the same memory."""
        return self.__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        if self._datatype() is DataType.BYTES:
            raise TritonModelException(f"tensor '{self._name}': DLPack has no string type")
        array = self.as_numpy()
        if array.flags.writeable and self._datatype() is not DataType.BF16:
            return array.__dlpack__(**options)
        # What numpy does not export: bfloat16, and memory that is not to be written to, as a
        # request's own.
        return ApiTensor.of(self._name, array).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_CPU_DEVICE, 0)

    def to_api(self) -> ApiTensor:
        """The tensor for the answer, on the same memory; a request's own goes back as it is."""
        if self._source is not None:
            return self._source
        array = self.as_numpy()
        if array.dtype.kind not in "OSU":
            return ApiTensor.of(self._name, array)
        packed = _packed(self._name, to_text_objects(array))
        return ApiTensor(self._name, DataType.BYTES, array.shape, packed)

    def _datatype(self) -> DataType:
        if self._source is not None:
            return self._source.datatype
        return DataType.from_numpy(self.as_numpy().dtype)


def _packed(name: str, texts: np.ndarray) -> PackedBytes:
    """The wire form: what cannot have one is found here, where it is known whose it is."""
    try:
        return PackedBytes.pack(texts)
    except UnicodeEncodeError:
        for index, element in enumerate(texts.flat):
            if isinstance(element, str):
                text_in(element, f"element {index} of tensor '{name}'")
        raise


class InputTensor(Tensor):
    """A request's tensor; BYTES are unpacked when asked for."""

    __slots__ = ()

    def __init__(self, source: ApiTensor) -> None:
        self._name = source.name
        self._array = None
        self._source = source


def _values(source: ApiTensor) -> np.ndarray:
    values = source.numpy()
    if source.datatype is DataType.BYTES and any(isinstance(each, str) for each in values.flat):
        # From JSON: models expect bytes, as they come over gRPC.
        return source.packed().objects().reshape(source.shape)
    return values


class _Capsule:
    """Makes numpy take a bare DLPack capsule."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_CPU_DEVICE, 0)


def _host_array(name: str, tensor: Any) -> np.ndarray:
    if isinstance(tensor, Tensor):
        return tensor.as_numpy()
    is_capsule = type(tensor).__name__ == "PyCapsule"
    try:
        if is_capsule and retyped_bfloat16(tensor):
            return np.from_dlpack(_Capsule(tensor)).view(DataType.BF16.dtype)
        torch = sys.modules.get("torch")
        if torch is not None:
            # Whoever makes device memory or bfloat16 in practice has torch, which can read both.
            return _torch_array(torch, torch.utils.dlpack.from_dlpack(tensor))
        return np.from_dlpack(_Capsule(tensor) if is_capsule else tensor)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TritonModelException(f"tensor '{name}' from DLPack: {error}") from error


def _torch_array(torch: Any, tensor: Any) -> np.ndarray:
    host = tensor.detach().cpu().contiguous()
    array: np.ndarray
    if host.dtype is torch.bfloat16:
        array = host.view(torch.int16).numpy().view(DataType.BF16.dtype)
    else:
        array = host.numpy()
    return array
