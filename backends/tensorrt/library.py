"""Finds TensorRT: `tensorrt`, else TensorRT-RTX, which has the same API.

TensorRT proper comes from its maker's index only; TensorRT-RTX is on the package index, and its
builder needs no GPU.
"""

import importlib
import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from trivet.backends.api import DataType, LoadFailed

log = logging.getLogger(__name__)

_MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
_DATATYPES = {
    "FLOAT": DataType.FP32,
    "HALF": DataType.FP16,
    "BF16": DataType.BF16,
    "INT8": DataType.INT8,
    "INT32": DataType.INT32,
    "INT64": DataType.INT64,
    "UINT8": DataType.UINT8,
    "BOOL": DataType.BOOL,
}
_KEPT_MESSAGES = 8


class TensorRt:
    """The library, and what it says while it works. Any thread."""

    def __init__(self, module: Any) -> None:
        self.trt = module
        self.version: str = module.__version__
        self.is_rtx = "rtx" in module.__name__
        self.title = f"TensorRT-RTX {self.version}" if self.is_rtx else f"TensorRT {self.version}"
        self._errors = _Errors()
        self.logger = _make_logger(module, self._errors)

    @contextmanager
    def listening(self) -> Iterator[deque[str]]:
        """The errors that TensorRT reports meanwhile to this thread: it returns None and logs the
        reason."""
        self._errors.of_thread.clear()
        yield self._errors.of_thread

    def datatype(self, dtype: Any) -> DataType | None:
        """Ours for a trt.DataType; None for FP8, FP4 and INT4, of which there are no tensors."""
        return _DATATYPES.get(dtype.name)


@cache
def load_tensorrt() -> TensorRt:
    """Raises LoadFailed where neither is installed."""
    broken = ""
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:
            # Installed, but a library that it needs is missing or of another version.
            broken = f"; '{name}' is installed but does not start: {error}"
            continue
        if hasattr(module, "Builder") or hasattr(module, "Runtime"):
            log.info("found %s (module %s)", module.__version__, name)
            return TensorRt(module)
    raise LoadFailed(
        f"TensorRT is not installed{broken}: pip install tensorrt (which downloads from its "
        "maker's index) or tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings"
    )


def first_reason(errors: "deque[str]") -> str:
    """What went wrong, in one line: TensorRT names the cause first, then what followed from it."""
    return errors[0].splitlines()[0] if errors else "it gave no reason"


class _Errors(threading.local):
    """Each thread's own: many instances run at a time."""

    def __init__(self) -> None:
        self.of_thread: deque[str] = deque(maxlen=_KEPT_MESSAGES)


def _make_logger(module: Any, errors: _Errors) -> Any:
    severity = module.ILogger
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(module.ILogger):  # type: ignore[misc]  # a class of the library that was found
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            """Called by TensorRT, from any thread."""
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                errors.of_thread.append(text)
                # The error that is raised says it; here it would be a second time.
                level = logging.DEBUG
            log.log(level, "%s", text)

    return Logger()
