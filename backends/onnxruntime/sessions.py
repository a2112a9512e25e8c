"""Makes ONNX Runtime sessions, one for all CPU instances of a model version."""

import threading
from pathlib import Path
from weakref import WeakValueDictionary

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.api.protobuf_file import MalformedMessage
from trivet.backends.onnxruntime.maps import without_maps
from trivet.backends.onnxruntime.options import SessionPlan

# ONNX Runtime's errors have no base class of their own.
ORT_ERRORS: tuple[type[Exception], ...] = (
    errors.EPFail,
    errors.EngineError,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.ModelLoaded,
    errors.NoModel,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
)

_LOAD_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, MalformedMessage)
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""Where files of weights lie, for a model that is not opened by its path."""
_Key = tuple[Path, tuple[tuple[str, int, int, int], ...], SessionPlan]


class Sessions:
    """Sessions in use. `run` of a session may be called by many threads, so instances share it.

    Held weakly: a session lives as long as an instance has it. The key has the state of all files
    beside the model, so that a file replaced in place never meets an older session.
    """

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[_Key, ort.InferenceSession] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(self, path: Path, plan: SessionPlan) -> ort.InferenceSession:
        """Raises LoadFailed."""
        if not plan.is_shareable:
            return create_session(path, plan)
        key = (path, _fingerprint(path.parent), plan)
        with self._lock:
            session = self._shared.get(key)
        if session is None:
            session = create_session(path, plan)
            with self._lock:
                session = self._shared.setdefault(key, session)
        return session


def create_session(path: Path, plan: SessionPlan) -> ort.InferenceSession:
    """Raises LoadFailed with ONNX Runtime's own reason."""
    providers = [(name, dict(options)) for name, options in plan.providers]
    if plan.is_on_gpu and hasattr(ort, "preload_dlls"):
        # Finds CUDA and cuDNN in the packages that the extra onnx-gpu brings.
        ort.preload_dlls()
    options = plan.options()
    try:
        content = without_maps(path)
        if content is not None:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
        session = ort.InferenceSession(content or str(path), options, providers=providers)
    except _LOAD_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LoadFailed(
            f"'{path.name}' could not be loaded by ONNX Runtime {ort.__version__} "
            f"(it is {describe_content(path)}): {reason}"
        ) from error
    _check_started(path, plan, session)
    return session


def _check_started(path: Path, plan: SessionPlan, session: ort.InferenceSession) -> None:
    """ONNX Runtime goes on without a provider that does not start; a slow model is no answer."""
    started = session.get_providers()
    missing = [name for name, _ in plan.providers if name not in started]
    if missing:
        raise LoadFailed(
            f"'{path.name}': ONNX Runtime {ort.__version__} could not start {', '.join(missing)} "
            f"(it has {', '.join(started)}): its CUDA, cuDNN or TensorRT libraries are missing or "
            "of another version than it was built for, or the NVIDIA driver is too old. Compare "
            "onnxruntime.print_debug_info() with nvidia-smi, or pip install trivet[onnx-gpu]"
        )


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    states = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file()]
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states)
