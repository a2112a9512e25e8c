"""Memory of GPUs, by model: what a load takes, and the arithmetic where it does not fit."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from weakref import WeakSet

from trivet.backends.api import InvalidConfig, LoadFailed, Memory, ModelFiles, Placement
from trivet.backends.device.nvml import GpuInfo, Gpus
from trivet.server.models.file_sizes import weight_bytes

log = logging.getLogger(__name__)

_MEMORY_WORDS = ("out of memory", "failed to allocate memory", "memory is full", "cudamalloc")
GPU_KIND = "KIND_GPU"


@dataclass(slots=True, eq=False, weakref_slot=True)
class LoadMemory:
    """What one load took. It counts for as long as the loaded model holds it."""

    model: str = ""
    taken: dict[GpuInfo, int] = field(default_factory=dict)
    """Bytes."""
    told: Mapping[int | None, int] = field(default_factory=dict)
    """Bytes by GPU number, where the instances themselves say."""


class GpuLedger:
    """What every loaded model took when it was loaded. Any thread.

    Few frameworks say what they take, so a load is measured: by how much the GPU's used memory
    grows, unless its instances tell. Loads on the same GPU therefore go one after another. What a
    model takes later, for its first large batches, is not in it.
    """

    def __init__(self, gpus: Gpus, limits: Mapping[int, float] | None = None) -> None:
        """`limits`: by GPU, the used share from which on nothing more is loaded."""
        self.gpus = gpus
        self._limits = limits or {}
        self._locks = {info: threading.Lock() for info in gpus.all}
        self._loads: WeakSet[LoadMemory] = WeakSet()

    @contextmanager
    def loading(
        self, model_name: str, known: Memory, files: ModelFiles, placements: Sequence[Placement]
    ) -> Iterator[LoadMemory]:
        """Around the opening and warming of a version. Raises LoadFailed, before where it is known
        that it cannot fit, or instead of an error that says that memory is full."""
        memory = LoadMemory(f"'{model_name}' version {files.version}")
        places = self._places(placements)
        with ExitStack() as held:
            for info in sorted(places, key=lambda info: info.number):
                held.enter_context(self._locks[info])
            before = {info: self.gpus.read(info) for info in places}
            needs = {
                info: _Need(files, known, num_instances) for info, num_instances in places.items()
            }
            for info, need in needs.items():
                self._check_limit(model_name, info)
                if known.files_are_least and need.total_bytes > before[info].free_bytes:
                    raise LoadFailed(self._arithmetic(model_name, info, need, is_known=True))
            try:
                yield memory
            except Exception as error:
                if any(word in str(error).lower() for word in _MEMORY_WORDS):
                    told = [
                        self._arithmetic(model_name, info, need, is_known=False)
                        for info, need in needs.items()
                    ]
                    raise LoadFailed(" ".join([f"{error}.", *told])) from error
                raise
            for info, reading in before.items():
                size_bytes = memory.told.get(info.number)
                if size_bytes is None:
                    size_bytes = max(0, self.gpus.read(info).used_bytes - reading.used_bytes)
                memory.taken[info] = size_bytes
                mib, number = size_bytes >> 20, info.number
                log.info("model '%s' took %d MiB of GPU %d", model_name, mib, number)
        if memory.taken:
            self._loads.add(memory)

    def _places(self, placements: Sequence[Placement]) -> dict[GpuInfo, int]:
        """The GPUs of placements that can be measured, with the number of instances on each."""
        places: dict[GpuInfo, int] = {}
        for placement in placements:
            uuid, number = placement.device_uuid, placement.device_id
            info = self.gpus.by_uuid(uuid) if uuid else self.gpus.by_number(number)
            if placement.kind == GPU_KIND and info is not None:
                places[info] = places.get(info, 0) + 1
        return places

    def _check_limit(self, model_name: str, info: GpuInfo) -> None:
        limit = self._limits.get(info.number)
        if limit is None:
            return
        reading = self.gpus.read(info)
        share = reading.used_bytes / reading.total_bytes
        if share > limit:
            raise LoadFailed(
                f"model '{model_name}' is not loaded: {share:.0%} of GPU {info.number}'s memory "
                f"are in use, more than the {limit:.0%} of --model-load-gpu-limit"
            )

    def _arithmetic(self, model_name: str, info: GpuInfo, need: "_Need", *, is_known: bool) -> str:
        reading = self.gpus.read(info)
        others = [(load.model, load.taken.get(info, 0)) for load in set(self._loads)]
        others.sort(key=lambda item: -item[1])
        shown = ", ".join(f"{name} {_gib(size)}" for name, size in others[:5] if size)
        beside = f" Loaded there: {shown}." if shown else ""
        more = "" if is_known else " besides what computing takes"
        return (
            f"Model '{model_name}' does not fit on GPU {info.number} ({info.name}): it needs at "
            f"least {_gib(need.total_bytes)} ({need.text}){more}, and {_gib(reading.free_bytes)} "
            f"of {_gib(reading.total_bytes)} are free.{beside} Unload a model, lower "
            "instance_group.count, or place it on another GPU (instance_group.gpus)"
        )


class _Need:
    """The least that a model takes: its files, for each instance."""

    def __init__(self, files: ModelFiles, known: Memory, num_instances: int) -> None:
        size_bytes = weight_bytes(files, known)
        copies = 1 if GPU_KIND in known.shared_on else num_instances
        self.total_bytes = size_bytes * copies
        times = "" if copies == 1 else f"{copies} instances x "
        self.text = f"{times}{_gib(size_bytes)} of model files"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.2f} GiB"


def parse_limits(given: Sequence[str]) -> dict[int, float]:
    """`--model-load-gpu-limit GPU:SHARE`. Raises InvalidConfig."""
    limits: dict[int, float] = {}
    for text in given:
        number, _, share = text.partition(":")
        try:
            limits[int(number)] = value = float(share)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InvalidConfig(
                f"--model-load-gpu-limit is '{text}'; write GPU:SHARE such as 0:0.9"
            )
    return limits
