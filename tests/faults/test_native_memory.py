"""Whatever is in C touches only its own memory, does nothing undefined and has no races: its tests
run over a build with the compiler's sanitizers, which end the process that they find fault with.

That they would is tried with faults planted in a copy. What AMX loads and stores goes past them;
the vectors' way through the same code does not.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from patience import patience
from sanitizers import (
    DECODER_FLAGS,
    GUARD_FLAGS,
    MEMORY,
    RECORDS_FLAGS,
    THREADS,
    Run,
    Workshop,
    run,
)

from trivet.backends.llm.native.library import NEEDED_FLAGS, processor_flags

MISSING = sorted(NEEDED_FLAGS - processor_flags())
needs_vectors = pytest.mark.skipif(bool(MISSING), reason=f"this processor has no {MISSING}")
KERNEL_TESTS = "tests/backends/llm/native"
PAST_THE_END = ("states.h", "head, size * sizeof(bf16)", "head, 2 * size * sizeof(bf16)")
PAST_THE_RANGES = ("shm_guard.c", "&ranges[i].end, start + size", "&ranges[i + 1024].end, 0")
PAST_THE_FIELDS = ("records.c", "if (count > record->num_arguments) {", "if (count > 99) {")
OVERFLOW = ("team.h", "*from = (int)((int64_t)total *", "*from = (int)(total * 1000000007 *")
NO_WAIT = ("team.h", "return done == (uint64_t)work->pieces;", "return 1;")
Make = Callable[..., Workshop]
Fault = tuple[str, str, str]


@pytest.fixture
def workshop(tmp_path: Path) -> Make:
    """Makes a copy of the sources with faults in it."""

    def make(sanitizers: str, *faults: Fault) -> Workshop:
        made = Workshop(tmp_path, sanitizers)
        for fault in faults:
            made.plant(*fault)
        return made

    return make


def run_kernel(workshop: Workshop, *selection: str, timeout_s: float) -> Run:
    workshop.make_library("decoder.c", DECODER_FLAGS)
    return workshop.run_tests(KERNEL_TESTS, *selection, timeout_s=timeout_s)


@needs_vectors
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_decoder_passes_its_tests_under_sanitizers(workshop: Make) -> None:
    done = run_kernel(workshop(MEMORY), timeout_s=patience(1000))
    assert done.findings == []
    assert done.code == 0, done.text
    assert done.num_passed >= 80


@needs_vectors
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fault_of_the_decoder_would_be_found_by_its_tests(workshop: Make) -> None:
    done = run_kernel(
        workshop(MEMORY, PAST_THE_END), "-k", "llama-whole-16", timeout_s=patience(250)
    )
    assert done.code != 0
    assert "heap-buffer-overflow" in done.findings[0], done.text


def run_guard(workshop: Workshop) -> Run:
    """But for the test that starts a process of its own, which would take the installed guard."""
    workshop.make_library("shm_guard.c", GUARD_FLAGS)
    chosen = ("tests/server/shared_memory/test_system.py", "-k", "not other_faults")
    return workshop.run_tests(*chosen, timeout_s=patience(100))


def test_the_guard_passes_its_tests_under_sanitizers(workshop: Make) -> None:
    done = run_guard(workshop(MEMORY))
    assert done.findings == []
    assert done.code == 0, done.text
    assert "skipped" not in done.text


@pytest.mark.slow
def test_a_fault_of_the_guard_would_be_found_by_its_tests(workshop: Make) -> None:
    done = run_guard(workshop(MEMORY, PAST_THE_RANGES))
    assert done.code != 0
    assert "out of bounds" in done.findings[0], done.text


def run_records(workshop: Workshop) -> Run:
    workshop.make_library("records.c", RECORDS_FLAGS)
    return workshop.run_tests("tests/backends/api/native", timeout_s=patience(100))


@pytest.mark.slow
def test_records_pass_their_tests_under_sanitizers(workshop: Make) -> None:
    done = run_records(workshop(MEMORY))
    assert done.findings == []
    assert done.code == 0, done.text


@pytest.mark.slow
def test_a_fault_of_the_records_would_be_found_by_their_tests(workshop: Make) -> None:
    done = run_records(workshop(MEMORY, PAST_THE_FIELDS))
    assert done.code == 1, done.text


@needs_vectors
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sanitizers", [MEMORY, THREADS])
def test_three_threads_compute_what_one_does_under_sanitizers(
    workshop: Make, sanitizers: str
) -> None:
    program = workshop(sanitizers).make_threads()
    done = run([str(program)], {})
    assert done.findings == []
    assert (done.code, done.text) == (0, "the same 192 logits\n")


@needs_vectors
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("sanitizers", "fault", "found"),
    [
        pytest.param(MEMORY, PAST_THE_END, "heap-buffer-overflow", id="past the end"),
        pytest.param(MEMORY, OVERFLOW, "signed integer overflow", id="undefined"),
        pytest.param(THREADS, NO_WAIT, "data race", id="race"),
    ],
)
def test_a_planted_fault_would_be_found(
    workshop: Make, sanitizers: str, fault: Fault, found: str
) -> None:
    program = workshop(sanitizers, fault).make_threads()
    done = run([str(program)], {})
    assert done.code != 0
    assert found in done.findings[0], done.text
