"""Traces that are kept for the console: without the values of tensors, and not too many."""

import numpy as np

from trivet.backends.api import CopyKind
from trivet.server.console.traces import KEPT, RecentTraces
from trivet.server.tracing.record import SeenTensor, Span, Stages, Trace


def test_a_trace_is_told_from_its_first_moment_on() -> None:
    whole = Span("InferRequest", 1, 0, 10_000, 90_000, request_id="r")
    part = Span("m", 2, 1, 20_000, 80_000, "m", 3)
    part.stages = Stages(20_000, 30_000, 40_000, 60_000, 70_000)
    part.copied_bytes = {CopyKind.GATHER: 64}
    part.tensors.append(SeenTensor("TENSOR_QUEUE_INPUT", "x", "FP32", np.ones((2, 3))))
    traces = RecentTraces()
    traces.take(Trace(255, [whole, part], 0))

    (told,) = traces.newest(lambda _: True)

    assert (told["model"], told["request_id"], told["us"]) == ("m", "r", 80.0)
    assert told["trace_id"].endswith("ff")
    span = told["spans"][1]
    assert span["parent"] == told["spans"][0]["id"]
    assert (span["from_us"], span["to_us"], span["version"]) == (10.0, 70.0, 3)
    assert span["stages"]["compute"] == (30.0, 50.0)
    assert sum(span["copied"].values()) == 64
    assert span["tensors"] == [
        {"activity": "TENSOR_QUEUE_INPUT", "name": "x", "datatype": "FP32", "shape": [2, 3]}
    ]
    assert part.tensors, "whoever else has the trace has them still"


def test_the_newest_are_kept() -> None:
    traces = RecentTraces()
    for number in range(KEPT + 1):
        traces.take(Trace(number, [Span("m", 1, 0, 0, 1, "m")], 0))
    told = traces.newest(lambda _: True)
    assert (len(told), told[0]["number"], told[-1]["number"]) == (KEPT, KEPT + 1, 2)
