"""A folder's ONNX file, opened by ONNX Runtime where the instance is placed."""

from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from trivet.backends.api import LoadFailed, Placement

# ONNX Runtime's errors have no base class of their own.
_ERRORS: tuple[type[Exception], ...] = (
    errors.EPFail,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)


_SPINNING = "session.intra_op.allow_spinning"


def open_session(path: Path, placement: Placement, *, spins: bool = True) -> Any:
    """An InferenceSession. `spins`: whether its threads wait for work busily, which is faster where
    the cores have nothing else to do. Raises LoadFailed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, placement.cpu_threads)
    options.add_session_config_entry(_SPINNING, str(int(spins)))
    try:
        session = onnxruntime.InferenceSession(path, options, providers=_providers(placement))
    except _ERRORS as error:
        raise LoadFailed(f"ONNX Runtime cannot load {path.name}: {error}") from error
    _check_started(session, placement, path.name)
    return session


def _providers(placement: Placement) -> list[Any]:
    if placement.kind != "KIND_GPU":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": placement.device_id}), "CPUExecutionProvider"]


def _check_started(session: Any, placement: Placement, name: str) -> None:
    """ONNX Runtime goes on without a provider that does not start; a slow model is no answer."""
    if placement.kind == "KIND_GPU" and "CUDAExecutionProvider" not in session.get_providers():
        raise LoadFailed(
            f"{name}: ONNX Runtime {onnxruntime.__version__} could not start CUDA: pip install "
            "'trivet[onnx-gpu]', or place the model on a CPU by instance_group KIND_CPU"
        )
