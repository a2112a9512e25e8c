"""The sequence batcher without a server: requests per CPU second, whatever else the machine does.

`python -m bench.sequences_alone NUMBER SECONDS` prints them for so many open sequences as JSON.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np

from trivet.backends.api import (
    CheckedRequest,
    InferResponse,
    ModelFiles,
    Placement,
    ServingError,
    Signature,
    Tensor,
)
from trivet.backends.testing.identity import PlainIdentityInstance
from trivet.server.repository.config import parse_config
from trivet.server.scheduling.sequences.executor import SequenceExecutor, SequenceSchedule
from trivet.server.scheduling.sequences.plan import SequencePlan
from trivet.server.scheduling.statistics import ModelStatistics

IN_FLIGHT = 64
VALUES = np.zeros((1, 16), np.float32)


class _Sink:
    """Counts answers and says when all are there."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    def send(self, response: InferResponse, *, final: bool) -> None:  # noqa: ARG002 - the only one
        self.left -= 1
        if self.left == 0:
            self.done.set()

    def finish(self) -> None:
        raise RuntimeError("an answer was expected")

    def fail(self, error: ServingError) -> None:
        raise error


async def measure(config_text: str, num_sequences: int, seconds: float) -> dict[str, float]:
    """Requests to random sequences of so many, 64 at a time."""
    config = parse_config(config_text, "identity")
    config.name = "identity"
    files = ModelFiles(Path("identity"), 1)
    plan = SequencePlan.read(config, files)
    assert plan is not None
    placement = Placement("identity_0", "KIND_CPU", 0, 1)
    executor = SequenceExecutor(
        ("identity", 1),
        Signature.from_config(config),
        [(placement.name, PlainIdentityInstance(config, placement))],
        SequenceSchedule(plan),
        ModelStatistics("identity", 1),
    )
    ids = range(1, num_sequences + 1)
    for first in range(0, num_sequences, IN_FLIGHT):
        await _ask(executor, list(ids[first : first + IN_FLIGHT]), start=True)
    order = np.random.default_rng(3).integers(1, num_sequences + 1, 1 << 16).tolist()
    count, position, ends_s = 0, 0, time.perf_counter() + seconds
    cpu_s = time.process_time()
    while time.perf_counter() < ends_s:
        await _ask(executor, order[position : position + IN_FLIGHT])
        count += IN_FLIGHT
        position = (position + IN_FLIGHT) % len(order)
    cpu_s = time.process_time() - cpu_s
    await executor.close()
    return {"rate_per_s": count / cpu_s}


async def _ask(executor: SequenceExecutor, ids: list[int], *, start: bool = False) -> None:
    sink = _Sink()
    sink.left = len(ids)
    for number in ids:
        request = CheckedRequest(
            "identity",
            1,
            "",
            {"INPUT0": Tensor.of("INPUT0", VALUES)},
            sequence_id=number,
            sequence_start=start,
        )
        executor.submit(request, sink)
    await sink.done.wait()


if __name__ == "__main__":
    from bench.sequences import CONFIG

    print(json.dumps(asyncio.run(measure(CONFIG, int(sys.argv[1]), float(sys.argv[2])))))
