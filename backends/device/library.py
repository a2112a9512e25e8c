"""Finds and binds libcudart: the functions of CUDA's runtime that are used, and their types.

ctypes, not cuda-python or torch: it is 30 functions that have not changed since CUDA 11.4, every
framework for GPUs brings the library, and a server of ONNX models alone needs no torch.
"""

import ctypes
import importlib.util
import os
from collections.abc import Iterator, Mapping
from ctypes import c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from functools import cache
from pathlib import Path

from trivet.backends.api import LoadFailed
from trivet.backends.device.errors import raise_for

_NAMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so")
_DRIVER = "libcuda.so.1"
IPC_HANDLE_BYTES = 64


class IpcHandle(ctypes.Structure):
    """cudaIpcMemHandle_t."""

    _fields_ = (("reserved", ctypes.c_char * IPC_HANDLE_BYTES),)


_POINTER = ctypes.POINTER(c_void_p)
_INT = ctypes.POINTER(c_int)
_SIZE = ctypes.POINTER(c_size_t)
_FUNCTIONS: Mapping[str, tuple[object, ...]] = {
    "cudaDeviceGetDefaultMemPool": (_POINTER, c_int),
    "cudaMemPoolSetAttribute": (c_void_p, c_int, c_void_p),
    "cudaDeviceGetAttribute": (_INT, c_int, c_int),
    "cudaEventCreateWithFlags": (_POINTER, c_uint),
    "cudaEventDestroy": (c_void_p,),
    "cudaEventQuery": (c_void_p,),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaFreeAsync": (c_void_p, c_void_p),
    "cudaGetDevice": (_INT,),
    "cudaGetDeviceCount": (_INT,),
    "cudaGetLastError": (),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGraphInstantiateWithFlags": (_POINTER, c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaHostAlloc": (_POINTER, c_size_t, c_uint),
    "cudaIpcCloseMemHandle": (c_void_p,),
    "cudaIpcOpenMemHandle": (_POINTER, IpcHandle, c_uint),
    "cudaMallocAsync": (_POINTER, c_size_t, c_void_p),
    "cudaMemGetInfo": (_SIZE, _SIZE),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaRuntimeGetVersion": (_INT,),
    "cudaSetDevice": (c_int,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamCreateWithFlags": (_POINTER, c_uint),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamEndCapture": (c_void_p, _POINTER),
    "cudaStreamWaitEvent": (c_void_p, c_void_p, c_uint),
}


class CudaLibrary:
    """The bound functions. A call that fails raises DeviceFailed."""

    def __init__(self, path: str, driver: str = _DRIVER) -> None:
        """`driver`: its library, which is loaded when it is needed. Raises OSError."""
        self._library = ctypes.CDLL(path)
        self._driver = driver
        self._error_name = self._library.cudaGetErrorName
        self._error_name.restype, self._error_name.argtypes = c_char_p, [c_int]
        for name, arguments in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = c_int, list(arguments)

    def call(self, name: str, *arguments: object) -> None:
        """Calls a function. Raises DeviceFailed, OutOfMemory."""
        code = getattr(self._library, name)(*arguments)
        if code:
            self._library.cudaGetLastError()  # or the next call reports it once more
            raise_for(name, code, self.error_name(code))

    def call_driver(self, name: str, *arguments: object) -> None:
        """Calls a function of the driver, which the runtime has started. Raises DeviceFailed."""
        code = int(getattr(ctypes.CDLL(self._driver), name)(*arguments))
        if code:
            raise_for(name, code, "of the driver")

    def code(self, name: str, *arguments: object) -> int:
        """Calls a function; the cudaError_t that it returns."""
        return int(getattr(self._library, name)(*arguments))

    def error_name(self, code: int) -> str:
        """As CUDA has it."""
        return (self._error_name(code) or b"unknown").decode()

    def version(self) -> str:
        """Of the runtime: 13.0."""
        number = c_int()
        self.call("cudaRuntimeGetVersion", ctypes.byref(number))
        return f"{number.value // 1000}.{number.value % 1000 // 10}"


@cache
def load_library(path: str = "") -> CudaLibrary:
    """The machine's CUDA runtime; a `path` names one. Raises LoadFailed."""
    refused = []
    for candidate in [path] if path else _candidates():
        try:
            return CudaLibrary(candidate)
        except OSError as error:
            refused.append(str(error))
    raise LoadFailed(
        f"no CUDA runtime was found ({refused[0]}); it comes with the packages for GPUs: pip "
        "install trivet[onnx-gpu] or nvidia-cuda-runtime"
    )


def _candidates() -> Iterator[str]:
    # One that is loaded already, by torch or ONNX Runtime, is found by its name.
    yield from _NAMES
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or ()) if found else ():
        yield from map(os.fspath, sorted(Path(folder).glob("*/lib/libcudart.so*"), reverse=True))
