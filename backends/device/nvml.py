"""The machine's GPUs as NVIDIA's management library sees them: names, memory, load and power.

`nvidia-ml-py` is optional; without it, or without a driver, there are no GPUs to see. It makes no
CUDA context, so a server that computes nothing on a GPU takes no memory there.
"""

import ctypes
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self

log = logging.getLogger(__name__)

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MILLI = 1000
_DRIVER = "libnvidia-ml.so.1"
"""The driver's part that answers, as Linux names it."""


def has_driver() -> bool:
    """Whether there is a driver to ask: the package looks for it, too, but takes 2 MB itself."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """A GPU, or a part of one (MIG), that CUDA sees."""

    number: int
    """CUDA's ordinal."""
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A GPU at a moment. None: it does not tell."""

    total_bytes: int
    used_bytes: int
    utilization: float | None
    """0 to 1."""
    power_w: float | None
    power_limit_w: float | None
    energy_j: float | None
    """Since the driver was loaded."""

    @property
    def free_bytes(self) -> int:
        """What is left."""
        return self.total_bytes - self.used_bytes


class Gpus:
    """The GPUs that this process may use. Any thread."""

    def __init__(self, nvml: Any, handles: Mapping[GpuInfo, Any], why_none: str = "") -> None:
        self._nvml = nvml
        self._handles = handles
        self.all = tuple(handles)
        self.why_none = why_none
        """Why there is none, where there is none."""

    @classmethod
    def none(cls, why: str) -> Self:
        """Of a machine without GPUs."""
        return cls(None, {}, why)

    @classmethod
    def find(cls, nvml: Any = None, environ: Mapping[str, str] = os.environ) -> Self:
        """Those that CUDA_VISIBLE_DEVICES leaves. `nvml`: the library, imported if not given."""
        if nvml is None:
            if find_spec("pynvml") is None:
                return cls.none(
                    "the package nvidia-ml-py, which finds GPUs, is not installed: "
                    "pip install trivet[gpu] or nvidia-ml-py"
                )
            if not has_driver():
                return cls.none(
                    f"no NVIDIA driver answers ({_DRIVER} is not there); nvidia-smi shows whether "
                    "it works"
                )
            nvml = importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
            handles = _visible(nvml, environ.get(_VISIBLE))
        except nvml.NVMLError as error:
            return cls.none(
                f"no NVIDIA driver answers ({error}); nvidia-smi shows whether it works"
            )
        infos = {
            GpuInfo(number, _text(nvml.nvmlDeviceGetUUID(h)), _text(nvml.nvmlDeviceGetName(h))): h
            for number, h in enumerate(handles)
        }
        hidden = f"; {_VISIBLE} is '{environ[_VISIBLE]}'" if _VISIBLE in environ else ""
        return cls(nvml, infos, "" if infos else f"there is no NVIDIA GPU{hidden}")

    def by_number(self, number: int) -> GpuInfo | None:
        """The GPU of an ordinal."""
        return self.all[number] if 0 <= number < len(self.all) else None

    def by_uuid(self, uuid: str) -> GpuInfo | None:
        """The GPU of a UUID, or of its first characters, as CUDA takes them."""
        found = [info for info in self.all if info.uuid.startswith(uuid)]
        return found[0] if len(found) == 1 else None

    def read(self, info: GpuInfo) -> GpuReading:
        """What it says now. Raises the library's NVMLError where even memory is not told."""
        nvml, handle = self._nvml, self._handles[info]
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)

        def ask(question: Callable[[Any], Any]) -> float | None:
            try:
                return float(question(handle))
            except nvml.NVMLError:
                return None  # MIG devices and older cards do not tell all

        load = ask(lambda h: nvml.nvmlDeviceGetUtilizationRates(h).gpu)
        power = ask(nvml.nvmlDeviceGetPowerUsage)
        limit = ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
        energy = ask(nvml.nvmlDeviceGetTotalEnergyConsumption)
        return GpuReading(
            int(memory.total),
            int(memory.used),
            None if load is None else load / 100,
            None if power is None else power / _MILLI,
            None if limit is None else limit / _MILLI,
            None if energy is None else energy / _MILLI,
        )

    def try_read(self, info: GpuInfo) -> GpuReading | None:
        """The same; None where the GPU does not answer."""
        try:
            return self.read(info)
        except self._nvml.NVMLError as error:
            log.debug("GPU %d does not answer: %s", info.number, error)
            return None


def _visible(nvml: Any, chosen: str | None) -> list[Any]:
    """Handles in CUDA's order. As CUDA does, an entry that is not there ends the list."""
    count = nvml.nvmlDeviceGetCount()
    if chosen is None:
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    handles: list[Any] = []
    for entry in (part.strip() for part in chosen.split(",")):
        if entry.isdecimal():
            if int(entry) >= count:
                break
            handles.append(nvml.nvmlDeviceGetHandleByIndex(int(entry)))
        elif entry.startswith(("GPU-", "MIG-")):
            handle = _by_uuid(nvml, entry, count)
            if handle is None:
                break
            handles.append(handle)
        else:
            break
    return handles


def _by_uuid(nvml: Any, uuid: str, count: int) -> Any:
    """The device of a UUID, which may be cut short."""
    for index in range(count):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(uuid):
            return handle
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
