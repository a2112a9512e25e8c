"""The generate extension: JSON keys to tensors and back, and events as they come."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
from http_site import FakeCore, Site, open_site, signature, spec
from patience import patience

from trivet.backends.api import (
    BackendFailed,
    CheckedRequest,
    DataType,
    InferRequest,
    InferResponse,
    InvalidRequest,
    PackedBytes,
    QueueFull,
    Sink,
    Tensor,
)
from trivet.server.http.app import HttpLimits
from trivet.server.http.generate import decode_generate, generated_json

PATH = "/v2/models/llm/generate"


def word(text: str) -> InferResponse:
    tensor = Tensor.of("text_output", np.array([text.encode()], dtype=object))
    return InferResponse("llm", 1, "", [tensor])


def decode(document: dict[str, Any], *dims: int, batch: int = 0, fp32: bool = True) -> InferRequest:
    datatype = DataType.FP32 if fp32 else DataType.BYTES
    model = signature(spec("x", datatype, *dims), max_batch_size=batch)
    return decode_generate(document, model, "m", None)


@pytest.mark.parametrize(
    ("value", "dims", "batch", "shape"),
    [
        (1.5, (1,), 0, (1,)),
        ([1, 2, 3], (3,), 0, (3,)),
        ([1, 2, 3], (-1,), 0, (3,)),
        ([1, 2, 3], (-1,), 4, (1, 3)),
        ([1, 2, 3, 4, 5, 6], (2, -1), 0, (2, 3)),
        ([[1, 2, 3], [4, 5, 6]], (-1, 2, -1), 0, (1, 2, 3)),
        ([1, 2], (-1, 2), 0, (1, 2)),
        ([], (-1,), 0, (0,)),
    ],
)
def test_elements_are_spread_over_the_dims(
    value: Any, dims: tuple[int, ...], batch: int, shape: tuple[int, ...]
) -> None:
    tensor = decode({"x": value}, *dims, batch=batch).inputs["x"]
    assert tensor.shape == shape
    assert tensor.numpy().ravel().tolist() == np.ravel(value).tolist()


@pytest.mark.parametrize(
    ("document", "dims", "text"),
    [
        ({"x": [1, 2, 3]}, (2,), "takes dims [2], which 3 elements do not fill"),
        ({"x": [1, 2, 3]}, (2, -1), "which 3 elements do not fill"),
        ({"x": "a"}, (1,), "is a string, which is no FP32"),
        ({"x": None}, (1,), "is null, which is no FP32"),
        ({"x": 1, "p": {"y": 1}}, (1,), "parameter 'p' must be a boolean, a number or a string"),
        ({"x": 1, "parameters": {"x": 2}}, (1,), "input 'x' already exists in request"),
        ({"x": 1, "triton_p": 2}, (1,), "reserved for Triton usage"),
        ({"x": 1, "id": 3}, (1,), "'id' of the request must be a string"),
    ],
)
def test_what_does_not_fit_is_refused(
    document: dict[str, Any], dims: tuple[int, ...], text: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(document, *dims)
    assert text in caught.value.message


def test_other_keys_are_parameters() -> None:
    request = decode(
        {"id": "7", "x": "a", "stream": True, "parameters": {"temperature": 0.5, "priority": 1}},
        1,
        fp32=False,
    )
    assert request.id == "7"
    assert request.inputs["x"].numpy().tolist() == [b"a"]
    assert request.parameters == {"stream": True, "temperature": 0.5}
    assert request.priority == 1


def test_one_element_becomes_a_scalar_and_many_a_list() -> None:
    outputs = [
        Tensor.of("one", np.array([[3.3]], np.float32)),
        Tensor.of("nan", np.array([np.nan], np.float32)),
        Tensor.of("many", np.array([[1, 2]], np.int64)),
        Tensor.of("text", np.array([b"a"], object)),
        Tensor.of("flag", np.array([True])),
        Tensor.of("none", np.empty(0, np.float32)),
    ]
    text = generated_json(InferResponse("m", 2, "i", outputs, {"p": 1}))
    assert text == (
        b'{"id":"i","model_name":"m","model_version":"2","p":1,"one":3.3,"nan":NaN,'
        b'"many":[1,2],"text":"a","flag":true,"none":[]}'
    )


async def test_generate_answers_with_the_one_response(site: Site) -> None:
    site.core.responses["llm"] = lambda request, sink: sink.send(word("hi"), final=True)
    async with site.session.post(PATH, json={"text_input": "a", "weights": [1, 2]}) as answer:
        assert answer.status == 200
        assert await answer.json() == {
            "model_name": "llm",
            "model_version": "1",
            "text_output": "hi",
        }
    (request,) = site.core.requests
    assert request.inputs["weights"].numpy().tolist() == [1, 2]


@pytest.mark.parametrize("count", [0, 2])
async def test_generate_refuses_any_other_number_of_responses(site: Site, count: int) -> None:
    def respond(request: CheckedRequest, sink: Sink) -> None:
        for _ in range(count):
            sink.send(word("hi"), final=False)
        sink.finish()

    site.core.responses["llm"] = respond
    async with site.session.post(PATH, json={"text_input": "a"}) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert error.startswith(
        "generate expects model to produce exactly 1 response, use generate str"
    )
    body = orjson.dumps(
        {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
    )
    async with site.session.post("/v2/models/llm/infer", data=body) as answer:
        assert answer.status == 400
        assert f"expected a single response, got {count}" in (await answer.json())["error"]


async def events(answer: Any) -> list[Any]:
    text = (await answer.read()).decode()
    assert text.endswith("\n\n")
    assert all(event.startswith("data: ") for event in text.split("\n\n")[:-1])
    return [orjson.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-1]]


async def test_a_stream_is_events(site: Site) -> None:
    def respond(request: CheckedRequest, sink: Sink) -> None:
        sink.send(word("a"), final=False)
        sink.send(word("b"), final=False)
        sink.finish()

    site.core.responses["llm"] = respond
    async with site.session.post(
        f"{PATH}_stream", json={"text_input": "x"}, headers={"x-request-id": "r1"}
    ) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-request-id"] == "r1"
        assert [event["text_output"] for event in await events(answer)] == ["a", "b"]


async def test_events_come_when_they_are_made(site: Site) -> None:
    sinks: asyncio.Queue[Sink] = asyncio.Queue()
    site.core.responses["llm"] = lambda request, sink: sinks.put_nowait(sink)
    asking = asyncio.create_task(site.session.post(f"{PATH}_stream", json={"text_input": "x"}))
    async with asyncio.timeout(patience()):
        sink = await sinks.get()
        sink.send(word("a"), final=False)
        answer = await asking
        assert b'"a"' in await answer.content.readuntil(b"\n\n")
        sink.send(word("b"), final=True)
        assert b'"b"' in await answer.content.readuntil(b"\n\n")
        assert await answer.content.read() == b""


async def test_an_error_before_the_first_event_has_a_status(site: Site) -> None:
    site.core.responses["llm"] = lambda request, sink: sink.fail(QueueFull("full"))
    async with site.session.post(f"{PATH}_stream", json={"text_input": "x"}) as answer:
        assert answer.status == 503
        assert await answer.json() == {"error": "full"}


async def test_an_error_after_the_first_event_is_the_last_event(site: Site) -> None:
    def respond(request: CheckedRequest, sink: Sink) -> None:
        sink.send(word("a"), final=False)
        sink.fail(BackendFailed("broke"))

    site.core.responses["llm"] = respond
    async with site.session.post(f"{PATH}_stream", json={"text_input": "x"}) as answer:
        assert answer.status == 200
        first, last = await events(answer)
    assert first["text_output"] == "a"
    assert last == {"error": "broke"}


async def test_a_client_that_leaves_cancels_its_stream(site: Site) -> None:
    requests: asyncio.Queue[tuple[CheckedRequest, Sink]] = asyncio.Queue()
    cancelled = asyncio.Event()
    site.core.responses["llm"] = lambda request, sink: requests.put_nowait((request, sink))
    asking = asyncio.create_task(site.session.post(f"{PATH}_stream", json={"text_input": "x"}))
    async with asyncio.timeout(patience()):
        request, sink = await requests.get()
        request.cancel.on_cancel(cancelled.set)
        sink.send(word("a"), final=False)
        answer = await asking
        assert not request.cancel.cancelled
        answer.close()
        await cancelled.wait()


async def test_an_internal_fault_in_a_stream_breaks_it_off(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def respond(request: CheckedRequest, sink: Sink) -> None:
        sink.send(word("a"), final=False)
        broken = Tensor("x", DataType.FP32, (1,), PackedBytes(memoryview(b""), [0]))
        sink.send(InferResponse("llm", 1, "", [broken]), final=True)

    site.core.responses["llm"] = respond
    async with site.session.post(f"{PATH}_stream", json={"text_input": "x"}) as answer:
        assert b'"a"' in await answer.content.readuntil(b"\n\n")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert [record.message for record in caplog.records if "internal error" in record.message]


@pytest.fixture
async def narrow(core: FakeCore) -> AsyncIterator[Site]:
    opened = await open_site(core, HttpLimits(max_pending_events=4))
    yield opened
    await opened.close()


async def test_a_client_that_does_not_read_is_cancelled(narrow: Site) -> None:
    def flood(request: CheckedRequest, sink: Sink) -> None:
        for _ in range(10):
            sink.send(word("a"), final=False)
        assert request.cancel.cancelled

    narrow.core.responses["llm"] = flood
    async with narrow.session.post(f"{PATH}_stream", json={"text_input": "x"}) as answer:
        *words, last = await events(answer)
    assert len(words) == 4
    assert "left 4 responses unread" in last["error"]
