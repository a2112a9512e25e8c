"""DLPack capsules on memory that is none of numpy's: the exporting half of the protocol, and of the
other what numpy lacks."""

import ctypes
from itertools import count
from typing import Any

import numpy as np

from trivet.backends.api.datatype import DataType

_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_BFLOAT = 4
_HOST_DEVICE = 1


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
# A field's type may name the structure itself, so the fields come after it.
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))

_exported: dict[int, tuple[object, _Managed, Any]] = {}
"""What consumers still hold, by number: the memory's owner and the structures they read."""
_numbers = count(1)
_NAME = b"dltensor"

# Function objects of our own: those of `ctypes.pythonapi` are shared by all, and XGBoost's and
# LightGBM's imports give them other types.
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _delete(managed: Any) -> None:
    """A consumer is done."""
    _exported.pop(managed.contents.context, None)


def _drop_capsule(capsule: int) -> None:
    """A capsule that nobody has taken: consumers rename those that they take."""
    if _is_valid(capsule, _NAME):
        managed = ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_Managed))
        _exported.pop(managed.contents.context, None)


# C calls them for as long as the process lives.
_DELETE, _DROP_CAPSULE = _DELETER(_delete), _DESTRUCTOR(_drop_capsule)


def make_capsule(
    owner: object, address: int, dtype: np.dtype[Any], shape: tuple[int, ...],
    device: tuple[int, int],
) -> object:  # fmt: skip
    """A capsule on `address`; `owner` lives as long as a consumer has it."""
    is_bfloat16 = dtype == DataType.BF16.dtype
    code = _BFLOAT if is_bfloat16 else _CODES[dtype.kind]
    dims = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    managed = _Managed()
    managed.tensor = _Tensor(
        address, _Device(*device), len(shape), _Type(code, dtype.itemsize * 8, 1),
        ctypes.cast(dims, ctypes.POINTER(ctypes.c_int64)), None, 0,
    )  # fmt: skip
    number = next(_numbers)
    managed.context, managed.deleter = number, _DELETE
    _exported[number] = (owner, managed, dims)
    return _new(ctypes.addressof(managed), _NAME, ctypes.cast(_DROP_CAPSULE, ctypes.c_void_p))


def retyped_bfloat16(capsule: object) -> bool:
    """Has a capsule of bfloat16 in host memory, that nobody has taken yet, say that it is of
    uint16, which numpy takes; whether it was one."""
    address = id(capsule)
    if not _is_valid(address, _NAME):
        return False
    managed = ctypes.cast(_pointer(address, _NAME), ctypes.POINTER(_Managed))
    tensor = managed.contents.tensor
    is_one = tensor.device.type == _HOST_DEVICE and tensor.dtype.code == _BFLOAT
    if is_one:
        tensor.dtype.code = _CODES["u"]
    return bool(is_one)
