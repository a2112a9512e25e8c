"""Plan files: opened by TensorRT, and what the file itself says where TensorRT refuses it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.tensorrt.description import Description, note_of
from trivet.backends.tensorrt.library import TensorRt, first_reason

_MAGIC = {b"ftrt": "TensorRT", b"vtrt": "TensorRT-RTX"}
_VERSION_AT = 24
"""Where the header has major, minor, patch and build, a byte each."""


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """The first bytes of a plan."""

    made_by: str
    version: tuple[int, ...]

    @classmethod
    def read(cls, plan: Path) -> "PlanHeader | None":
        """None for a file that is no plan."""
        with plan.open("rb") as file:
            head = file.read(_VERSION_AT + 4)
        if head[:4] not in _MAGIC or len(head) < _VERSION_AT + 4:
            return None
        return cls(_MAGIC[head[:4]], tuple(head[_VERSION_AT:]))


def require_header(plan: Path) -> PlanHeader:
    """Raises LoadFailed for a file that is no plan."""
    header = PlanHeader.read(plan)
    if header is None:
        raise LoadFailed(
            f"'{plan.name}' is no TensorRT engine (it is {describe_content(plan)}); make one with "
            "trivet build-engine MODEL.onnx"
        )
    return header


def check_plan(
    library: TensorRt, plan: Path, note: Description | None, capability: str | None
) -> None:
    """Refuses, before TensorRT reads it, what is known not to fit here. Raises LoadFailed.

    `capability`: of the GPU ("9.0"); None: there is none to compare with.
    """
    header = require_header(plan)
    here = "TensorRT-RTX" if library.is_rtx else "TensorRT"
    if header.made_by != here:
        raise LoadFailed(
            f"'{plan.name}' was made by {header.made_by}, but {library.title} is installed, and "
            "neither reads the other's engines; build it again with trivet build-engine"
        )
    if note is None or not note.compute_capabilities or capability is None:
        return
    if capability not in note.compute_capabilities:
        raise LoadFailed(
            f"'{plan.name}' was built for GPUs of compute capability "
            f"{', '.join(note.compute_capabilities)}, but this GPU has {capability}; build it on "
            "this GPU with trivet build-engine, or name the file for it in cc_model_filenames"
        )


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """An engine, and the runtime that must outlive it."""

    engine: Any
    runtime: Any


def open_engine(library: TensorRt, plan: Path, *, runs_host_code: bool) -> OpenPlan:
    """The engine of a plan, on the current GPU. Raises LoadFailed with TensorRT's reason.

    `runs_host_code`: version-compatible engines carry a runtime, which is native code.
    """
    runtime = library.trt.Runtime(library.logger)
    if runs_host_code:
        runtime.engine_host_code_allowed = True
    with library.listening() as errors:
        engine = runtime.deserialize_cuda_engine(plan.read_bytes())
        reason = first_reason(errors)
    if engine is None:
        raise LoadFailed(_refusal(library, plan, reason))
    return OpenPlan(engine, runtime)


def _refusal(library: TensorRt, plan: Path, reason: str) -> str:
    text = f"'{plan.name}' could not be loaded by {library.title}: {reason}"
    header = PlanHeader.read(plan)
    ours = tuple(int(part) for part in library.version.split(".")[:4] if part.isdecimal())
    if "cudaError 35" in reason:
        return f"{text}; install an NVIDIA driver for this CUDA (nvidia-smi shows the driver's)"
    if "memory" in reason.lower():
        return (
            f"{text}; lower the number of instances, set the parameter "
            "execution_context_allocation_strategy to ON_PROFILE_CHANGE, or free the GPU"
        )
    if header is not None and header.version[: len(ours)] != ours:
        made = ".".join(map(str, header.version))
        return (
            f"{text}; it was made by version {made}: build it again with trivet build-engine, or "
            "with --version-compatible, and set the parameter version_compatible to true"
        )
    if not note_of(plan).exists():
        text += "; it may be for another GPU: build it on this one with trivet build-engine"
    return text
