"""Whatever an executor answers with, the call that asked has an end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from http_site import FakeCore

from trivet.backends.api import CheckedRequest, InferResponse, Sink, Tensor
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.service import PREFIX, Service
from trivet.server.grpc.transport import Buffer, Code, Stream, Unary

HALF = "\ud83d"


class RecordedCall:
    """A Call that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[tuple[Code, str]] = []
        self.metadata: Mapping[str, str] = {}
        self.deadline: float | None = None
        self.is_writable = True

    def on_writable(self, callback: Callable[[], None]) -> None:
        """It is always."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Nobody cancels."""

    def tell(self, metadata: Mapping[str, str]) -> None:
        """Of no concern here."""

    def send(self, message: Sequence[Buffer]) -> None:
        self.messages.append(b"".join(message))

    def finish(self) -> None:
        self.ends.append((Code.OK, ""))

    def answer(self, message: Sequence[Buffer]) -> None:
        self.send(message)
        self.finish()

    def fail(self, code: Code, text: str) -> None:
        text.encode()
        self.ends.append((code, text))


def texts(*values: object) -> Tensor:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return Tensor.of("OUTPUT0", array)


ODD: dict[str, tuple[list[Tensor], dict[str, Any]]] = {
    "half a surrogate pair": ([texts(HALF)], {}),
    "an object": ([texts(object())], {}),
    "a parameter of no type": ([texts("x")], {"k": None}),
    "a parameter that is too large": ([texts("x")], {"k": 2**64}),
    "a parameter of half a pair": ([texts("x")], {"k": HALF}),
    "a parameter named so": ([texts("x")], {HALF: 1}),
}


@pytest.fixture(params=ODD)
def core(request: pytest.FixtureRequest) -> FakeCore:
    outputs, parameters = ODD[request.param]
    core = FakeCore()

    def respond(asked: CheckedRequest, sink: Sink) -> None:
        response = InferResponse(asked.model_name, 1, asked.id, list(outputs), parameters)
        sink.send(response, final=True)

    core.responses["ident_str"] = respond
    return core


def message() -> bytes:
    asked = pb.ModelInferRequest(model_name="ident_str", id="r1")
    asked.inputs.add(name="INPUT0", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"")
    return asked.SerializeToString()


@pytest.mark.more_of("V61")
async def test_a_call_ends_with_an_error_where_its_answer_cannot_be_encoded(core: FakeCore) -> None:
    row = Service(core).rows()[PREFIX + "ModelInfer"]
    assert isinstance(row, Unary)
    call = RecordedCall()
    row.handle(call, message())
    ((code, text),) = call.ends
    assert code is Code.INTERNAL
    assert text == "the answer of model 'ident_str' cannot be sent; the server log has the details"


@pytest.mark.more_of("V61")
async def test_a_stream_tells_of_an_answer_that_cannot_be_encoded_and_goes_on(
    core: FakeCore,
) -> None:
    row = Service(core).rows()[PREFIX + "ModelStreamInfer"]
    assert isinstance(row, Stream)
    call = RecordedCall()
    stream = row.open(call)
    for _ in range(2):
        stream.on_message(message())
    stream.on_half_close()
    answers = [pb.ModelStreamInferResponse.FromString(each) for each in call.messages]
    assert ["cannot be sent" in each.error_message for each in answers] == [True, True]
    assert [each.infer_response.id for each in answers] == ["r1", "r1"]
    assert call.ends == [(Code.OK, "")]
