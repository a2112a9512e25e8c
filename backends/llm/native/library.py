"""Finds the compiled step, if it was built and this processor can run it."""

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trivet.backends.llm.native.structures import STRUCTURE_BYTES

LIBRARY = Path(__file__).with_name("_decoder.so")
NEEDED_FLAGS = frozenset(
    {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni"}
)
TILE_FLAGS = frozenset({"amx_tile", "amx_bf16", "amx_int8"})


@dataclass(frozen=True, slots=True)
class Native:
    """The compiled step on this machine."""

    functions: ctypes.CDLL
    has_amx: bool


@cache
def load_native() -> Native | str:
    """The library; or, where there is none, why. `TRIVET_NATIVE=0` turns it off, `=avx512` leaves
    AMX unused."""
    if why := why_not_used():
        return why
    # Its OpenMP is then torch's, which must be loaded before: two would take each other's cores.
    functions = ctypes.CDLL(str(LIBRARY))
    if not hasattr(functions, "structure_bytes") or functions.structure_bytes() != STRUCTURE_BYTES:
        return "it was built from other sources than these: install trivet again"
    functions.scratch_bytes.restype = ctypes.c_int64
    has_tiles = _wish() != "avx512" and processor_flags() >= TILE_FLAGS
    return Native(functions, has_tiles and bool(functions.allow_tiles()))


def why_not_used() -> str:
    """As far as can be told without loading it; "" where nothing speaks against it."""
    if _wish() == "0":
        return "TRIVET_NATIVE is 0"
    if not LIBRARY.exists():
        return "it was not built: no C compiler was there at installation"
    missing = ", ".join(sorted(NEEDED_FLAGS - processor_flags()))
    return f"this processor has no {missing}" if missing else ""


def _wish() -> str:
    return os.environ.get("TRIVET_NATIVE", "1")


def processor_flags() -> frozenset[str]:
    """What the processor can do, in the kernel's words."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except (OSError, UnicodeDecodeError):
        pass
    return frozenset()
