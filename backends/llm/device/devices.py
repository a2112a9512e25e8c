"""The device that an engine computes on: which one, what fits there, and why one cannot be had."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trivet.backends.api import LoadFailed, Unavailable
from trivet.backends.llm.settings import EngineSettings

log = logging.getLogger(__name__)
CPU = torch.device("cpu")
MIB = 1024 * 1024
LIBRARY_BYTES = 256 * MIB
"""What cuBLAS, the kernels' code and the allocator's rounding take beside all that is counted."""
CPU_CACHE_BYTES = 1 << 30
DEVICE_LOST: type[Exception] = getattr(torch, "AcceleratorError", torch.cuda.CudaError)
"""A fault of a GPU, which all that the process does on it afterwards repeats. (torch < 2.8 has but
the second.) A lack of memory is none."""


def choose_device(name: str, rank: int = 0) -> torch.device:
    """The device of a model's `device` setting, or the one so many behind it. Raises LoadFailed
    when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return CPU
    device = torch.device(name)
    index = (device.index or 0) + rank
    _check_cuda(name, index)
    torch.cuda.set_device(index)
    log.info("computing on cuda:%d, %s", index, torch.cuda.get_device_name(index))
    return torch.device("cuda", index)


def _check_cuda(name: str, index: int) -> None:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch's own lack
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LoadFailed(
            f"device is '{name}', but PyTorch {torch.__version__} cannot use a GPU here: {reason} "
            "(nvidia-smi shows driver and GPUs; the model parameter device may be cpu)"
        ) from error
    count = torch.cuda.device_count()
    if index >= count:
        raise LoadFailed(
            f"device is '{name}', but GPU {index} is not there: there are {count}, numbered from "
            "0 (model parameter device, tensor_parallel_size or pipeline_parallel_size, or the "
            "instance group's gpus; CUDA_VISIBLE_DEVICES hides some)"
        )


def choose_dtype(name: str, device: torch.device = CPU) -> torch.dtype:
    """The type to compute in: bfloat16 where the device multiplies it, for "auto"."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        has_tensor_cores = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if has_tensor_cores else torch.float16
    # The only way to ask torch; its public form does not exist yet.
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001
    return torch.bfloat16 if has_bfloat16 else torch.float32


def free_memory() -> None:
    """Gives back what PyTorch keeps of a GPU's memory for later."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own lack
        torch.cuda.empty_cache()


def no_memory(num_rows: int, num_tokens: int) -> Unavailable:
    """What requests are told whose step does not fit, even by halves."""
    return Unavailable(
        f"out of memory in a step of {num_tokens} tokens of {num_rows} requests: try again later, "
        "or lower the model parameter max_batched_tokens, max_num_seqs or gpu_memory_utilization"
    )


@contextmanager
def memory_told() -> Iterator[None]:
    """LoadFailed when a GPU's memory is taken by others after all."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LoadFailed(
            f"out of GPU memory while loading: {str(error).splitlines()[0]} (lower the model "
            "parameter gpu_memory_utilization or kv_cache_bytes, or free the GPU)"
        ) from error


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A GPU's memory, in bytes, and who has it."""

    total: int
    others: int
    """In use before the model came."""
    weights: int
    step: int = 0
    """What the largest step takes beside."""
    graphs: int = 0
    """What recorded steps keep."""
    adapters: int = 0
    """What adapters may take, in slots and in a step."""

    @property
    def taken(self) -> int:
        """All but the cache, libraries included."""
        return self.others + self.weights + self.step + self.graphs + self.adapters + LIBRARY_BYTES

    @classmethod
    def before(cls, device: torch.device, weights: int) -> "MemoryUse":
        """Now, with weights of so many bytes to come."""
        free, total = torch.cuda.mem_get_info(device)
        return cls(total, total - free, weights)


ADAPTERS_SHARE = 8
"""Adapters get one part in so many of what weights and steps leave, unless they need less: whoever
has none loses that much of the cache, and 8 of rank 16 fit beside a model of half the GPU."""


def adapter_bytes(settings: EngineSettings, use: MemoryUse, most: int) -> int:
    """What adapters may take of a GPU that is used so, of `most` that they could."""
    left = int(use.total * settings.gpu_memory_utilization) - use.taken
    share = left - settings.kv_cache_bytes if settings.kv_cache_bytes else left // ADAPTERS_SHARE
    return max(min(most, share), 0)


def cache_bytes(settings: EngineSettings, use: MemoryUse | None) -> int:
    """What the key/value cache may take; `use` is None on a processor. Raises LoadFailed when
    weights and steps leave nothing."""
    if use is None:
        return settings.kv_cache_bytes or CPU_CACHE_BYTES
    usable = int(use.total * settings.gpu_memory_utilization)
    taken = {
        "in use": use.others,
        "of weights": use.weights,
        "for a step": use.step,
        "for recorded steps": use.graphs,
        "for adapters": use.adapters,
        "for libraries": LIBRARY_BYTES,
    }
    left = usable - use.taken
    parts = ", ".join(f"{size // MIB} MiB {name}" for name, size in taken.items() if size)
    arithmetic = (
        f"{use.total // MIB} MiB of the GPU x gpu_memory_utilization "
        f"{settings.gpu_memory_utilization:g} = {usable // MIB} MiB, less {parts}, leave "
        f"{left // MIB} MiB"
    )
    if left < max(settings.kv_cache_bytes, 1):
        wanted = f" of {settings.kv_cache_bytes // MIB} MiB" if settings.kv_cache_bytes else ""
        raise LoadFailed(
            f"out of GPU memory: {arithmetic} for the key/value cache{wanted}: raise the model "
            "parameter gpu_memory_utilization, lower max_batched_tokens, max_num_seqs or "
            "kv_cache_bytes, set quantization to fp8, free the GPU or take another"
        )
    log.info("GPU memory: %s", arithmetic)
    return settings.kv_cache_bytes or left
