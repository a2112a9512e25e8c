"""Compiles the language models' decoder step while trivet is installed, if there is a C compiler.

Without one everything works: torch computes the step instead. The step runs on x86 processors with
AVX512-BF16 only, which is asked at run time, so that a wheel built here may be installed elsewhere.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("trivet/backends/llm/native")  # links in a checkout, real folders in an sdist
FLAGS = (
    *("-O3", "-std=gnu11", "-shared", "-fPIC", "-fopenmp", "-mfma"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16"),
    *("-mamx-tile", "-mamx-bf16"),
)


class NativeStep(BuildHookInterface):  # type: ignore[type-arg]
    """Adds `_decoder.so` to the package where it can be made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Called by hatchling before it collects files."""
        folder = Path(self.root) / FOLDER
        made = folder / "_decoder.so"
        if self.target_name != "wheel" or not compile_step(folder / "decoder.c", made):
            return
        build_data["artifacts"].append(str(FOLDER / made.name))
        build_data["pure_python"] = False
        # Plain C behind ctypes: any Python 3 of this platform can load it.
        build_data["tag"] = (
            f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        )


def compile_step(source: Path, made: Path) -> bool:
    """Whether `made` is there now. A compiler that is missing or too old is no error."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return False
    unfinished = made.with_suffix(".new")
    command = [compiler, *FLAGS, "-o", str(unfinished), str(source), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        print(f"the decoder step was not compiled; torch will compute it:\n{done.stderr}")  # noqa: T201
        return False
    unfinished.replace(made)
    return True
