"""Compiles what is in C while trivet is installed, if there is a compiler.

Without one everything works: torch computes the language models' decoder step, clients' shared
memory is copied instead of mapped, and requests are made by Python's own code. The step runs on x86
processors with AVX512-BF16 only, which is asked at run time, so that a wheel built here may be
installed elsewhere.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


@dataclass(frozen=True)
class Part:
    """One library. Folders are links in a checkout, real ones in an sdist."""

    source: Path
    made: str
    flags: tuple[str, ...]
    instead: str
    """What happens without it."""


SHARED = ("-O3", "-std=gnu11", "-shared", "-fPIC")
VECTORS = (
    *("-fopenmp", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16"),
    *("-mavx512vnni", "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
)
DECODER = Part(
    Path("trivet/backends/llm/native/decoder.c"),
    "_decoder.so",
    (*SHARED, *VECTORS),
    "torch will compute the decoder step",
)
GUARD = Part(
    Path("trivet/server/shared_memory/native/shm_guard.c"),
    "_shm_guard.so",
    SHARED,
    "shared memory of clients will be copied",
)
RECORDS = Part(
    Path("trivet/backends/api/native/records.c"),
    # No other Python tries to load it.
    f"_records{sysconfig.get_config_var('EXT_SUFFIX')}",
    ("-O2", *SHARED[1:], f"-I{sysconfig.get_path('include')}"),
    "requests will be made by Python alone",
)


class NativeParts(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the libraries to the package that can be made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Called by hatchling before it collects files."""
        if self.target_name != "wheel":
            return
        parts = [GUARD, RECORDS]
        if platform.machine() == "x86_64":
            parts.append(DECODER)
        made = [part for part in parts if compile_part(Path(self.root), part)]
        if not made:
            return
        build_data["artifacts"] += [str(part.source.with_name(part.made)) for part in made]
        build_data["pure_python"] = False
        # Plain C behind ctypes, and a module that another Python does without: this platform's any
        # Python 3 can use it.
        build_data["tag"] = (
            f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        )


def compile_part(root: Path, part: Part) -> bool:
    """Whether it is there now. A compiler that is missing or too old is no error."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not sys.platform.startswith("linux"):
        return False
    source = root / part.source
    made = source.with_name(part.made)
    unfinished = made.with_suffix(".new")
    command = [compiler, *part.flags, "-o", str(unfinished), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        print(f"{source.name} was not compiled; {part.instead}:\n{done.stderr}")  # noqa: T201
        return False
    unfinished.replace(made)
    return True
