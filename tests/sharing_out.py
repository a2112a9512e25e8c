"""Who runs which test: files are shared out among the workers of pytest-xdist, long ones first.

All tests of a file go to one worker, and so do all files that share a server, which is then started
once. The longest groups go first: what is left for the end is short, so that the workers end
together."""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "reference_model": (
        "tests/backends/llm/test_acceptance.py",
        "tests/backends/llm/engine/test_logprobs.py",
        "tests/protocol/openai/test_logprobs.py",
        "tests/protocol/test_real_language_model.py",
    ),
    "language_server": ("tests/protocol/openai/",),
    # A server of its own: all of them together would be what the others wait for at the end.
    "other_language_apis": ("tests/clients/", "tests/protocol/anthropic/", "tests/protocol/tgi/"),
    "example_server": ("tests/examples/", "tests/house/test_commands_in_documents.py"),
    "security": ("tests/security/",),
    "encoders": ("tests/protocol/encoders/",),
    "tensorflow": ("tests/backends/tensorflow/",),
}
"""Files and folders that share a server or a model, by its name; the first that fits counts."""

SECONDS = {
    "language_server": 400,
    "other_language_apis": 150,
    "tests/backends/llm/process/test_engine_process.py": 70,
    "tests/faults/test_faulty_disk.py": 60,
    "reference_model": 60,
    "example_server": 50,
    "security": 45,
    "encoders": 25,
    "tests/faults/test_http_rows.py": 35,
    "tests/backends/llm/process/test_in_process.py": 30,
    "tests/faults/test_supervision.py": 25,
    "tests/server/metrics/test_generating.py": 25,
    "tests/protocol/test_hot_reload.py": 20,
    "tests/faults/test_repository_rows.py": 20,
    "tests/server/tracing/test_opentelemetry.py": 20,
    "tests/fuzz/test_openapi.py": 20,
    "tests/backends/llm/sampling/test_grammar.py": 16,
    "tensorflow": 16,
    "tests/bench/gpu/test_gpu_bench.py": 16,
    "tests/backends/llm/models/test_llama.py": 15,
    "tests/faults/test_failures.py": 15,
    "tests/server/auth/test_generating_ensembles.py": 15,
    "tests/server/auth/test_llm.py": 15,
    "tests/faults/test_native_memory.py": 12,
}
"""How long the long groups take, by their names; a minute more or less changes nothing."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out groups in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def share_cores() -> None:
    """Gives a worker's libraries its part of the cores, before they are loaded: each would else
    take all of them."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, len(os.sched_getaffinity(0)) // workers)
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(threads))


def group_of(nodeid: str) -> str:
    """The server that the test shares with others, or its file."""
    file = nodeid.partition("::")[0]
    return next((name for name, paths in GROUPS.items() if file.startswith(paths)), file)


def put_long_groups_first(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: -SECONDS.get(group_of(item.nodeid), 0))
