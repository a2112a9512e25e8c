"""What a GPU's runtime says when it refuses, in words that tell what to change."""

from typing import NoReturn

from trivet.backends.api import BackendFailed, DeviceLost, LoadFailed

OUT_OF_MEMORY = 2
INSUFFICIENT_DRIVER = 35
NO_DEVICE = 100
INVALID_DEVICE = 101
NO_KERNEL_IMAGE = 209
STICKY = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719, 720})
"""After these every call in the process fails: an illegal address, an assertion, a bad instruction,
a launch that failed or timed out, an uncorrectable memory error."""

_CAUSES = {
    OUT_OF_MEMORY: "the GPU's memory is full; lower max_batch_size or the number of instances, "
    "unload a model, or place this one on another GPU (instance_group.gpus)",
    3: "the driver could not be initialised; nvidia-smi shows whether it works",
    INSUFFICIENT_DRIVER: "the NVIDIA driver is missing or older than this CUDA runtime needs; "
    "nvidia-smi shows the driver's version and the newest CUDA that it takes: install a newer "
    "driver or packages for an older CUDA",
    46: "the GPU is used exclusively by another process, or it is a MIG device that is gone",
    NO_DEVICE: "there is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it",
    INVALID_DEVICE: "there is no GPU of that number (instance_group.gpus; numbers are those of "
    "CUDA_VISIBLE_DEVICES)",
    NO_KERNEL_IMAGE: "it was not compiled for this GPU's compute capability; build it for this GPU",
    214: "the GPU's memory has an uncorrectable error; have the GPU looked at (nvidia-smi -q)",
    700: "a kernel read or wrote outside of its memory",
    719: "a kernel failed while it ran",
}


class DeviceFailed(BackendFailed):
    """A call to a GPU's runtime failed; the process and its other models go on."""


class OutOfMemory(DeviceFailed):
    """There is no memory for what was asked for; what is loaded goes on."""


def raise_for(what: str, code: int, name: str) -> NoReturn:
    """Raises the error of a cudaError_t that is not success."""
    cause = _CAUSES.get(code, "see the CUDA runtime's list of errors")
    text = f"{what}: CUDA error {code} ({name}): {cause}"
    if code in STICKY:
        raise lost(text)
    raise (OutOfMemory if code == OUT_OF_MEMORY else DeviceFailed)(text)


def lost(text: str) -> DeviceLost:
    """The error of a GPU that this process can use no more."""
    return DeviceLost(
        f"{text}. All further work of this process on its GPUs fails: restart the server; a model "
        "with parameter isolation: process fails alone and is restarted by itself"
    )


def as_load_failure(model_name: str, error: DeviceFailed | DeviceLost) -> LoadFailed:
    """The same while a model is being loaded."""
    return LoadFailed(f"model '{model_name}' could not be loaded on its GPU: {error.message}")
