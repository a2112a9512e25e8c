"""Models ask models through the runner: never in a circle, never too deep, for their caller."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from fakes import CountingSink, make_request, make_signature

from trivet.backends.api import InferRequest, InferResponse, InvalidRequest, Sink, derive
from trivet.backends.api.runner import MAX_DEPTH
from trivet.server.models.registry import Registry
from trivet.server.models.runner import ModelRunner


class Doubler:
    """An executor that answers at once and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[InferRequest] = []

    def submit(self, request: InferRequest, sink: Sink) -> None:
        self.requests.append(request)
        tensor = request.inputs["IN"]
        sink.send(InferResponse("m", 1, request.id, [tensor.renamed("OUT", (1, 2))]), final=True)

    def is_ready(self) -> bool:
        return True


@pytest.fixture
def executor() -> Doubler:
    return Doubler()


@pytest.fixture
def runner(executor: Doubler) -> ModelRunner:
    registry = Registry()
    for name in ("m", "other"):
        model = SimpleNamespace(
            name=name, version=1, signature=make_signature(), executor=executor, labels={},
            reshape=None,
        )  # fmt: skip
        registry.publish(cast(Any, model))
    return ModelRunner(registry, cast(Any, None))


async def test_a_derived_request_runs_with_all_that_its_caller_was_given(
    runner: ModelRunner, executor: Doubler
) -> None:
    parent = make_request("id-7")
    parent.deadline, parent.priority, parent.sequence_id = 12.5, 3, "s"
    sink = CountingSink()

    runner.infer(derive(parent, "other", None, parent.inputs), sink)

    (asked,) = executor.requests
    assert (asked.id, asked.deadline, asked.priority, asked.sequence_id) == ("id-7", 12.5, 3, "s")
    assert asked.cancel is parent.cancel
    assert asked.callers == ("m",)
    assert sink.responses[0].outputs[0].data.base is parent.inputs["IN"].data  # type: ignore[union-attr]


async def test_a_model_cannot_ask_itself_however_indirectly(runner: ModelRunner) -> None:
    parent, sink = make_request(), CountingSink()
    child = derive(parent, "other", None, parent.inputs)

    runner.infer(derive(child, "m", None, parent.inputs), sink)

    assert isinstance(sink.error, InvalidRequest)
    assert "m -> other -> m" in sink.error.message


async def test_a_chain_of_models_has_an_end(runner: ModelRunner) -> None:
    request, sink = make_request(), CountingSink()
    request.callers = tuple(f"model{i}" for i in range(MAX_DEPTH + 1))

    runner.infer(request, sink)

    assert isinstance(sink.error, InvalidRequest)
    assert f"at most {MAX_DEPTH + 1} are allowed" in sink.error.message
