"""The native code compiled with the compiler's sanitizers, and what these say of a run.

Skips where there is no compiler, or none of its sanitizers' libraries.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from house_rules import ROOT
from patience import patience

TESTS = ROOT / "tests"
NATIVE = (
    ROOT / "backends/llm/native",
    ROOT / "backends/api/native",
    ROOT / "server/shared_memory/native",
)
PARTS = runpy.run_path(str(ROOT / "hatch_build.py"))
DECODER_FLAGS: tuple[str, ...] = PARTS["DECODER"].flags
GUARD_FLAGS: tuple[str, ...] = PARTS["GUARD"].flags
RECORDS_FLAGS: tuple[str, ...] = PARTS["RECORDS"].flags
MEMORY = "address,undefined"
THREADS = "thread"
# A finding ends the process. What Python leaves to the end of its process is no leak of ours, and
# SIGBUS is the guard's to handle.
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:handle_sigbus=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
_FINDING = re.compile(r"^.*(?:\w+Sanitizer: (?!failed to)|runtime error: ).*$", re.MULTILINE)
_SUMMARY = re.compile(r"(\d+) passed")


@dataclass(frozen=True)
class Run:
    """How a process ended, and all that it printed."""

    code: int
    text: str

    @property
    def findings(self) -> list[str]:
        """The lines in which a sanitizer names what it has found."""
        return _FINDING.findall(self.text)

    @property
    def num_passed(self) -> int:
        """Tests, of a run of pytest."""
        found = _SUMMARY.search(self.text)
        return int(found[1]) if found else 0


class Workshop:
    """A copy of all native sources, which a test may spoil, and what is made of it."""

    def __init__(self, folder: Path, sanitizers: str) -> None:
        """`sanitizers`: MEMORY or THREADS."""
        self.folder = folder
        self._sanitizers = sanitizers
        for source in NATIVE:
            for file in source.glob("*.[ch]"):
                shutil.copy(file, folder)

    def plant(self, file: str, text: str, instead: str) -> None:
        """Writes a fault into a source."""
        path = self.folder / file
        before = path.read_text()
        assert before.count(text) == 1, f"{file} has it {before.count(text)} times: {text}"
        path.write_text(before.replace(text, instead))

    def make_library(self, source: str, flags: Sequence[str]) -> None:
        """Compiles what installation compiles, under the name that it has there."""
        self._compile(self.folder / source, f"_{Path(source).stem}.so", *flags)

    def make_threads(self) -> Path:
        """Compiles tests/native_threads.c; returns the program. Skips where none would run: some
        kernels place memory where ThreadSanitizer has its own."""
        empty = self.folder / "empty.c"
        empty.write_text("int main(void) { return 0; }\n")
        self._compile(empty, "empty")
        done = run([str(self.folder / "empty")], {})
        if done.code:
            pytest.skip(done.text)
        flags = [flag for flag in DECODER_FLAGS if flag not in ("-shared", "-fPIC", "-fopenmp")]
        source = TESTS / "native_threads.c"
        self._compile(source, "threads", *flags, "-Wno-unknown-pragmas", f"-I{self.folder}")
        return self.folder / "threads"

    def _compile(self, source: Path, made: str, *flags: str) -> None:
        needs = ("asan", "ubsan") if self._sanitizers == MEMORY else ("tsan",)
        for name in needs:
            runtime(name)
        checks = [f"-fsanitize={self._sanitizers}", "-fno-sanitize-recover=all", "-g", "-O1"]
        command = [compiler(), *flags, *checks, "-o", str(self.folder / made), str(source)]
        subprocess.run([*command, "-lm", "-lpthread"], check=True)

    def run_tests(self, *arguments: str, timeout_s: float) -> Run:
        """Has tests of this suite run over the libraries that were made here."""
        # A finding ends the process at once: what pytest had captured would be lost.
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
        more = {
            "LD_PRELOAD": runtime("asan"),
            "PYTHONPATH": str(TESTS),
            "SANITIZED_PARTS": str(self.folder),
        }
        return run([*command, "-p", "sanitized_parts", *arguments], more, timeout_s)


def run(command: Sequence[str], more: Mapping[str, str], timeout_s: float | None = None) -> Run:
    """Runs a command in the checkout, with more variables."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **OPTIONS, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience() if timeout_s is None else timeout_s,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def compiler() -> str:
    """The one that installation would use."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None or sys.platform != "linux":
        pytest.skip("no C compiler")
    return found


def runtime(name: str) -> str:
    """The path of a sanitizer's library."""
    command = [compiler(), f"-print-file-name=lib{name}.so"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(path).is_absolute() or not Path(path).exists():
        pytest.skip(f"this compiler has no lib{name}.so")
    return path
