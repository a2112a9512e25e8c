"""Models ask models through the server: never in a circle, never too deep, for their caller."""

from typing import Any, cast

import numpy as np
import pytest
from fakes import CountingSink, make_request, make_signature
from made_models import made_model

from trivet.backends.api import (
    CheckedRequest,
    InferResponse,
    InvalidRequest,
    RequestContext,
    Sink,
    derive,
    inherited,
    inherited_jointly,
)
from trivet.backends.api.model_server import MAX_DEPTH
from trivet.backends.api.value import changed
from trivet.server.models.dispatcher import RequestDispatcher
from trivet.server.models.registry import Registry


class Doubler:
    """An executor that answers at once and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[CheckedRequest] = []

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        self.requests.append(request)
        tensor = request.inputs["IN"]
        sink.send(InferResponse("m", 1, request.id, [tensor.renamed("OUT", (1, 2))]), final=True)

    def is_ready(self) -> bool:
        return True


@pytest.fixture
def executor() -> Doubler:
    return Doubler()


@pytest.fixture
def dispatcher(executor: Doubler) -> RequestDispatcher:
    registry = Registry()
    for name in ("m", "other"):
        registry.publish(made_model(name, make_signature(), cast(Any, executor)))
    return RequestDispatcher(registry, cast(Any, None))


async def test_a_derived_request_runs_with_all_that_its_caller_was_given(
    dispatcher: RequestDispatcher, executor: Doubler
) -> None:
    charged: list[int] = []
    account: dict[str, Any] = {"tenant": "acme", "on_tokens": charged.append}
    parent = make_request("id-7", deadline=12.5, priority=3, sequence_id="s", **account)
    sink = CountingSink()

    dispatcher.infer(derive(parent, "other", None, parent.inputs), inherited(parent), sink)

    (asked,) = executor.requests
    assert (asked.id, asked.deadline, asked.priority, asked.sequence_id) == ("id-7", 12.5, 3, "s")
    assert asked.cancel is parent.cancel
    assert asked.callers == ("m",)
    assert (asked.tenant, asked.on_tokens) == ("acme", parent.on_tokens)
    (answer,) = sink.responses[0].outputs
    assert np.shares_memory(answer.numpy(), parent.inputs["IN"].numpy())


def test_tokens_asked_for_by_several_are_paid_in_equal_parts_by_those_who_pay() -> None:
    paid: list[tuple[str, int]] = []
    parents = [
        make_request(on_tokens=lambda count: paid.append(("first", count))),
        make_request(),
        make_request(on_tokens=lambda count: paid.append(("third", count))),
    ]

    joint = inherited_jointly(parents, "m")
    assert joint.on_tokens is not None
    joint.on_tokens(10)

    assert paid == [("first", 4), ("third", 4)]
    assert inherited_jointly(parents[1:2], "m").on_tokens is None


def test_what_is_asked_for_several_tenants_is_kept_for_none_of_them_alone() -> None:
    parents = [make_request(tenant=tenant) for tenant in ("b", "a", "b")]

    both = inherited_jointly(parents, "m").tenant
    assert both not in ("a", "b", "")
    assert inherited_jointly(parents[1:], "m").tenant == both
    assert inherited_jointly(parents[::2], "m").tenant == "b"


async def test_a_model_cannot_ask_itself_however_indirectly(dispatcher: RequestDispatcher) -> None:
    parent, sink = make_request(), CountingSink()
    child = changed(parent, model_name="other", callers=inherited(parent).callers)

    dispatcher.infer(derive(child, "m", None, parent.inputs), inherited(child), sink)

    assert isinstance(sink.error, InvalidRequest)
    assert "m -> other -> m" in sink.error.message


async def test_a_chain_of_models_has_an_end(dispatcher: RequestDispatcher) -> None:
    parent, sink = make_request(), CountingSink()
    context = RequestContext(callers=tuple(f"model{i}" for i in range(MAX_DEPTH + 1)))

    dispatcher.infer(derive(parent, "m", None, parent.inputs), context, sink)

    assert isinstance(sink.error, InvalidRequest)
    assert f"at most {MAX_DEPTH + 1} are allowed" in sink.error.message
