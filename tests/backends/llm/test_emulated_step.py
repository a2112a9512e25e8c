"""The compiled step computes what PyTorch does, with AVX-512 and with AMX, also where the tests run
on a processor that has neither: both are emulated by AVX2 (tests/emulation/immintrin.h)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from house_rules import ROOT
from patience import patience
from programs import do_without
from sanitizers import TESTS, compiler, run

from trivet.backends.llm.native.library import NEEDED_FLAGS, TILE_FLAGS, processor_flags

SIMDE = Path("/usr/include/simde/x86/avx512.h")
FLAGS = ("-O2", "-std=gnu11", "-shared", "-fPIC", "-fopenmp", "-mavx2", "-mfma", "-mf16c", "-w")
ASKS = "syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA)"
"""What asks the system for tiles. There is nobody to ask here."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        processor_flags() >= NEEDED_FLAGS | TILE_FLAGS,
        reason="this processor has all of it: the step's own tests run",
    ),
]


def test_the_compiled_step_passes_its_tests_where_its_instructions_are_emulated(
    tmp_path: Path,
) -> None:
    if not SIMDE.exists():
        do_without("SIMDe's headers are not installed (Debian package libsimde-dev)")
    sources, made = tmp_path / "sources", tmp_path / "emulated.so"
    shutil.copytree(ROOT / "backends/llm/native", sources)
    decoder = sources / "decoder.c"
    text = decoder.read_text()
    assert text.count(ASKS) == 1
    decoder.write_text(text.replace(ASKS, "0"))
    build = [compiler(), *FLAGS, f"-I{TESTS / 'emulation'}", "-o", str(made), str(decoder), "-lm"]
    subprocess.run(build, check=True, stderr=subprocess.DEVNULL)

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "emulated_parts",
    ]
    more = {"PYTHONPATH": str(TESTS), "EMULATED_PARTS": str(made), "TRIVET_NATIVE": "1"}
    done = run([*command, "tests/backends/llm/native"], more, patience(2000))
    assert done.code == 0, done.text
    assert done.num_passed >= 400
    assert "skipped" not in done.text
