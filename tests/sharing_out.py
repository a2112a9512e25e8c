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
    "example_server": 80,
    "language_server": 80,
    "security": 60,
    "reference_model": 60,
    "tests/faults/test_faulty_disk.py": 60,
    "tests/backends/llm/process/test_engine_process.py": 50,
    "tests/faults/test_supervision.py": 45,
    "tests/faults/test_rolling_restart.py": 35,
    "tests/protocol/test_hot_reload.py": 35,
    "other_language_apis": 30,
    "tests/protocol/test_nested.py": 30,
    "tests/acceptance/test_kinds.py": 30,
    "tests/faults/test_http_rows.py": 30,
    "tests/protocol/test_namespaces.py": 30,
    "tests/protocol/test_nested_streams.py": 25,
    "tests/faults/test_failures.py": 25,
    "tests/faults/test_model_rows.py": 25,
    "tests/server/tracing/test_opentelemetry.py": 25,
    "tests/backends/llm/sampling/test_grammar.py": 25,
    "tests/faults/test_repository_rows.py": 22,
    "tests/backends/llm/process/test_in_process.py": 20,
    "tests/fuzz/test_openapi.py": 20,
    "encoders": 18,
    "tests/protocol/test_custom_metrics.py": 18,
    "tests/protocol/test_gate.py": 15,
    "tests/protocol/test_layouts.py": 15,
    "tests/protocol/test_traffic.py": 14,
    "tests/house/test_packages.py": 14,
    "tests/house/test_frameworks.py": 12,
    "tests/protocol/test_sequences.py": 12,
    "tests/backends/llm/native/test_native.py": 12,
    "tests/protocol/test_rollouts.py": 12,
    "tests/ensembles/test_leaks.py": 12,
    "tensorflow": 12,
    "tests/bench/gpu/test_gpu_bench.py": 12,
    "tests/server/metrics/test_generating.py": 11,
    "tests/faults/test_repository_order.py": 11,
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
