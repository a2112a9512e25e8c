"""Whatever object user code answers with, where an output, error, parameter or response belongs:
its request has an end, and the process goes on."""

import numpy as np
import pytest
from odd_answers import DECOUPLED, NUM_ODD, ODD, PLAIN
from python_models import Maker, make_config, make_request, outputs_of, run, run_decoupled

from trivet.backends.api import BackendFailed, CheckedRequest, ServingError
from trivet.backends.process.instance import ProcessInstance


def number(value: int) -> CheckedRequest:
    return make_request(IN=np.array([value], np.int32))


def test_the_count_of_odd_answers_is_theirs(maker: Maker) -> None:
    source = (
        ODD
        + """
class TritonPythonModel:
    def execute(self, requests):
        return [fine(len(CASES)) for request in requests]
"""
    )
    instance = maker.open(source, make_config("IN:INT32", ">OUT:STRING"), "none")
    assert outputs_of(run(instance, number(0)))["OUT"].tolist() == [b"%d" % NUM_ODD]


@pytest.mark.more_of("V61")
def test_any_object_as_an_answer_ends_its_request_alone(maker: Maker, isolation: str) -> None:
    instance = maker.open(PLAIN, make_config("IN:INT32", ">OUT:STRING"), isolation)
    pid = instance.pid if isinstance(instance, ProcessInstance) else None
    for index in range(NUM_ODD):
        error: object = None
        try:
            batch = run(instance, number(index))
            error = batch.errors.get(0)
        except Exception as raised:  # noqa: BLE001 - user code's own, as its thread sees them
            error = raised
        else:
            if error is None:
                outputs_of(batch)
        if isinstance(error, ServingError):
            error.message.encode()
        assert "died" not in str(error)
    assert outputs_of(run(instance, number(-1)))["OUT"].tolist() == [b"1"]
    if pid is not None:
        assert isinstance(instance, ProcessInstance)
        assert instance.pid == pid


@pytest.mark.more_of("V61")
def test_any_object_sent_by_a_sender_ends_its_stream(maker: Maker) -> None:
    config = make_config("IN:INT32", ">OUT:STRING", decoupled=True)
    instance = maker.open(DECOUPLED, config, "process")
    assert isinstance(instance, ProcessInstance)
    pid = instance.pid
    for index in range(NUM_ODD):
        (recorder,) = run_decoupled(instance, number(index))
        assert recorder.await_end().num_ends == 1
        if recorder.error is not None:
            recorder.error.message.encode()
    (recorder,) = run_decoupled(instance, number(-1))
    assert recorder.await_end().responses[0]["OUT"].tolist() == [b"1"]
    assert instance.pid == pid


def test_a_text_that_cannot_be_encoded_fails_its_request_and_says_where(
    maker: Maker, isolation: str
) -> None:
    source = """
    class TritonPythonModel:
        def execute(self, requests):
            return [answer(request) for request in requests]

    def answer(request):
        text = json.loads(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0, 0])
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("OUT", np.array([["fine", text]], dtype=object))])
    """
    config = make_config("IN:STRING", ">OUT:STRING", max_batch_size=4)
    instance = maker.open(source, config, isolation)
    given = [make_request(IN=np.array([[each]], object)) for each in ('"\\ud83d"', '"whole"')]
    batch = run(instance, *given)
    assert isinstance(batch.errors[0], BackendFailed)
    text = "element 1 of tensor 'OUT' has '\\ud83d' at position 0, which UTF-8 cannot encode"
    assert text in batch.errors[0].message
    assert outputs_of(batch, 1)["OUT"].tolist() == [[b"fine", b"whole"]]


@pytest.mark.parametrize("flags", ["", ", flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL"])
def test_what_a_sender_cannot_send_ends_the_request_and_spares_the_others(
    maker: Maker, isolation: str, flags: str
) -> None:
    source = f"""
    class TritonPythonModel:
        def execute(self, requests):
            for request, text in zip(requests, ("\\ud83d", "whole")):
                sender = request.get_response_sender()
                out = pb_utils.Tensor("OUT", np.array([[text]], dtype=object))
                sender.send(pb_utils.InferenceResponse([out]){flags})
                if not "{flags}":
                    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    """
    config = make_config("IN:INT32", ">OUT:STRING", decoupled=True, max_batch_size=4)
    instance = maker.open(source, config, isolation)
    first, second = run_decoupled(instance, number(1), number(2))
    assert "which UTF-8 cannot encode" in str(first.await_end().error)
    assert second.await_end().error is None
    assert second.responses[0]["OUT"].tolist() == [[b"whole"]]
