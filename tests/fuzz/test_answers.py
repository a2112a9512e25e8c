"""Whatever user code puts where an output, an error, a parameter, an id or a response belongs, its
request has an end that can be sent, and its process goes on."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from fuzzing import ODD_NUMBERS, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from python_models import HEAD, Maker, make_config, make_request, outputs_of, run, run_decoupled

from trivet.backends.api import (
    CheckedRequest,
    InferRequest,
    InferResponse,
    RequestContext,
    ServingError,
    Sink,
)
from trivet.backends.process.instance import ProcessInstance
from trivet.backends.process.wire import encode_request
from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.nested import CALLING, Calling
from trivet.backends.python.model_api.request import InferenceRequest

TEXTS = st.text(st.characters(), max_size=8)
"""With halves of surrogate pairs."""
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), ODD_NUMBERS, st.floats(), TEXTS, st.binary(),
        st.complex_numbers(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(TEXTS | st.integers(), inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip
PLACES = st.sampled_from(
    ["array", "elements", "name", "outputs", "error", "error_text", "error_code", "parameters",
     "parameter", "response", "raised"]
)  # fmt: skip
MODEL = (
    HEAD
    + """
from math import inf, nan


def made(place, given):
    text = np.array(["x"], dtype=object)
    if place == "array":
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(given))])
    if place == "elements":
        text = np.empty(2, dtype=object)
        text[0], text[1] = "x", given
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)])
    if place == "name":
        return pb_utils.InferenceResponse([pb_utils.Tensor(given, text)])
    if place == "outputs":
        return pb_utils.InferenceResponse(given)
    if place == "error":
        return pb_utils.InferenceResponse(error=given)
    if place == "error_text":
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(given))
    if place == "error_code":
        return pb_utils.InferenceResponse(error=pb_utils.TritonError("x", given))
    if place == "raised":
        raise pb_utils.TritonModelException(given)
    if place == "response":
        return given
    parameters = {"k": given} if place == "parameter" else given
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)], parameters=parameters)


def answer(request):
    return made(*eval(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0]))
"""
)
PLAIN = """
class TritonPythonModel:
    def execute(self, requests):
        return [answer(request) for request in requests]
"""
DECOUPLED = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(answer(request), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
FINE = ("parameter", "fine")


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    maker = Maker(tmp_path_factory.mktemp("answers"))
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def plain(maker: Maker) -> ProcessInstance:
    instance = maker.open(MODEL + PLAIN, make_config("IN:STRING", ">OUT:STRING", name="plain"))
    assert isinstance(instance, ProcessInstance)
    return instance


@pytest.fixture(scope="module")
def decoupled(maker: Maker) -> ProcessInstance:
    config = make_config("IN:STRING", ">OUT:STRING", decoupled=True, name="decoupled")
    instance = maker.open(MODEL + DECOUPLED, config)
    assert isinstance(instance, ProcessInstance)
    return instance


def asked(place: str, given: object) -> CheckedRequest:
    return make_request(IN=np.array([repr((place, given))], dtype=object))


@fuzzed
@given(place=PLACES, given_object=ANYTHING)
def test_answers(plain: ProcessInstance, place: str, given_object: Any) -> None:
    pid = plain.pid
    try:
        batch = run(plain, asked(place, given_object))
    except ServingError as error:
        error.message.encode()
    else:
        for tensor in batch.outputs[0]:
            tensor.raw()
        orjson.dumps(batch.parameters.get(0))
    assert outputs_of(run(plain, asked(*FINE)))["OUT"].tolist() == [b"x"]
    assert plain.pid == pid


@fuzzed
@given(place=PLACES, given_object=ANYTHING)
def test_responses_of_senders(decoupled: ProcessInstance, place: str, given_object: Any) -> None:
    pid = decoupled.pid
    (recorder,) = run_decoupled(decoupled, asked(place, given_object))
    assert recorder.await_end().num_ends == 1
    if recorder.error is not None:
        recorder.error.message.encode()
    (recorder,) = run_decoupled(decoupled, asked(*FINE))
    assert recorder.await_end().error is None
    assert decoupled.pid == pid


class Answering:
    """An Asker that looks whether a question could be sent, and answers it."""

    owns_process = False

    def infer(
        self,
        request: InferRequest,
        context: RequestContext,
        parents: Sequence[CheckedRequest],
        sink: Sink,
    ) -> None:
        orjson.dumps(encode_request(request, context, 0))
        sink.send(InferResponse(request.model_name, 1, request.id, []), final=True)

    def cancel(self, context: RequestContext) -> None:
        """It has answered."""

    def give_room(self, context: RequestContext, num_responses: int) -> None:
        """It needs none."""


@fuzzed
@given(
    field=st.sampled_from(
        ["request_id", "correlation_id", "inputs", "requested_output_names", "model_name",
         "model_version", "flags", "timeout", "parameters"]
    ),
    given_object=ANYTHING,
)  # fmt: skip
def test_questions_to_other_models(field: str, given_object: Any) -> None:
    fields = {"model_name": "other", field: given_object}
    token = CALLING.set(Calling("m", Answering(), ()))  # type: ignore[arg-type] # it loads nothing
    try:
        InferenceRequest(**fields).exec()
    except TritonModelException as error:
        assert str(error)  # noqa: PT017 - either way is right
    except TypeError:
        assert field in ("inputs", "requested_output_names")
    finally:
        CALLING.reset(token)
