"""Models that answer through response senders, during `execute` and long after it."""

import numpy as np
import pytest
from python_models import Maker, make_config, make_request, outputs_of, run, run_decoupled

from trivet.backends.api import BackendFailed, CheckedRequest, Instance, InvalidRequest

REPEAT = """
class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        assert pb_utils.using_decoupled_model_transaction_policy(config)
        self.lock, self.running = threading.Lock(), 0

    def execute(self, requests):
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            thread = threading.Thread(
                target=self.respond, args=(request.get_response_sender(), values), daemon=True)
            with self.lock:
                self.running += 1
            thread.start()
        return None

    def respond(self, sender, values):
        for index in range(values.size):
            sender.send(pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", values[index:index + 1]),
                 pb_utils.Tensor("IDX", np.array([index], np.uint32))]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        with self.lock:
            self.running -= 1

    def finalize(self):
        while self.running:
            time.sleep(0.01)
"""


def ints(*values: int) -> CheckedRequest:
    return make_request(IN=np.array(values, np.int32))


def execute_with(maker: Maker, body: str, isolation: str) -> Instance:
    source = f"""
    class TritonPythonModel:
        def execute(self, requests):
            FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            def response(value):
                return pb_utils.InferenceResponse(
                    [pb_utils.Tensor("OUT", np.array([value], np.int32))])
            sender = requests[0].get_response_sender()
            {body}
    """
    return maker.open(source, make_config("IN:INT32", ">OUT:INT32", decoupled=True), isolation)


def test_responses_come_from_threads_after_execute_has_returned(
    maker: Maker, isolation: str
) -> None:
    config = make_config("IN:INT32", ">OUT:INT32", ">IDX:UINT32", decoupled=True)
    instance = maker.open(REPEAT, config, isolation)
    recorders = [run_decoupled(instance, ints(*range(n)))[0] for n in (5, 0, 3)]
    for recorder, n in zip(recorders, (5, 0, 3), strict=True):
        recorder.await_end()
        assert [response["OUT"].tolist() for response in recorder.responses] == [
            [value] for value in range(n)
        ]
        assert recorder.error is None
        assert recorder.num_ends == 1


def test_a_large_response_outlives_the_ones_after_it(maker: Maker) -> None:
    body = """
            for value in range(4):
                array = np.full(100_000, value, np.int32)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]))
            sender.send(flags=FINAL)"""
    instance = execute_with(maker, body.strip(), "process")
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    assert [np.unique(response["OUT"]).tolist() for response in recorder.responses] == [
        [0],
        [1],
        [2],
        [3],
    ]


def test_a_final_response_ends_the_request_and_carries_parameters(
    maker: Maker, isolation: str
) -> None:
    body = """
            last = pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", np.array([9], np.int32))], parameters={"reason": "stop"})
            sender.send(last, flags=FINAL)"""
    instance = execute_with(maker, body.strip(), isolation)
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    assert recorder.responses[0]["OUT"].tolist() == [9]
    assert recorder.parameters == [{"reason": "stop"}]
    assert recorder.num_ends == 1


def test_sending_after_the_end_is_an_error_in_the_model(maker: Maker, isolation: str) -> None:
    body = """
            sender.send(response(1), flags=FINAL)
            try:
                sender.send(response(2))
            except pb_utils.TritonModelException as error:
                with open(os.path.join(pb_utils.get_model_dir(), "error"), "w") as file:
                    file.write(str(error))"""
    instance = execute_with(maker, body.strip(), isolation)
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    maker.close(instance)
    assert len(recorder.responses) == 1
    path = maker.files("").version_dir / "error"
    assert path.read_text() == "Unable to send response. Response sender has been closed."


def test_an_error_response_ends_the_request_with_its_text(maker: Maker, isolation: str) -> None:
    body = """
            sender.send(response(1))
            error = pb_utils.TritonError("bad token", pb_utils.TritonError.INVALID_ARG)
            sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)"""
    instance = execute_with(maker, body.strip(), isolation)
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    assert len(recorder.responses) == 1
    assert isinstance(recorder.error, InvalidRequest)
    assert recorder.error.message == "bad token"


def test_an_exception_ends_the_request_after_what_it_had_sent(maker: Maker) -> None:
    body = """
            sender.send(response(1))
            raise KeyError("oops")"""
    instance = execute_with(maker, body.strip(), "process")
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    assert len(recorder.responses) == 1
    assert isinstance(recorder.error, BackendFailed)
    assert "oops" not in recorder.error.message


def test_a_dropped_sender_ends_the_request_with_an_error(maker: Maker) -> None:
    instance = execute_with(maker, "sender.send(response(1))", "process")
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    assert recorder.error is not None
    assert "dropped the response sender" in recorder.error.message


def test_returning_a_list_from_a_decoupled_model_is_refused(maker: Maker) -> None:
    instance = execute_with(maker, "return [response(1)]", "process")
    (recorder,) = run_decoupled(instance, ints(1))
    recorder.await_end()
    assert recorder.error is not None
    # Word for word, as clients of Triton's look for it.
    assert recorder.error.message == (
        "Python model 'm_0_0' is using the decoupled mode and the execute function must return "
        "None."
    )


def test_a_coroutine_goes_on_after_execute_has_returned(maker: Maker, isolation: str) -> None:
    source = """
    import asyncio
    class TritonPythonModel:
        async def execute(self, requests):
            sender = requests[0].get_response_sender()
            for value in range(3):
                await asyncio.sleep(0)
                sender.send(pb_utils.InferenceResponse(
                    [pb_utils.Tensor("OUT", np.array([value], np.int32))]))
            if requests[0].inputs()[0].as_numpy()[0] == 7:
                raise pb_utils.TritonModelException("seven")
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    """
    config = make_config("IN:INT32", ">OUT:INT32", decoupled=True)
    instance = maker.open(source, config, isolation)
    fine, seven = run_decoupled(instance, ints(1)) + run_decoupled(instance, ints(7))
    assert len(fine.await_end().responses) == 3
    assert fine.error is None
    error = seven.await_end().error
    assert error is not None
    assert error.message == "seven"


def late_model(body: str) -> str:
    return f"""
    class TritonPythonModel:
        def execute(self, requests):
            def good(value):
                return pb_utils.InferenceResponse(
                    [pb_utils.Tensor("OUT", np.array([[value]], np.int32))])
            {body}
    """


def rows(count: int) -> list[CheckedRequest]:
    return [make_request(IN=np.full((1, 1), n, np.int32)) for n in range(count)]


def test_a_plain_model_may_answer_through_senders_from_a_thread(
    maker: Maker, isolation: str
) -> None:
    body = """
            senders = [request.get_response_sender() for request in requests]
            def answer():
                for index, sender in enumerate(senders):
                    sender.send(good(index), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            threading.Thread(target=answer).start()
            return None"""
    config = make_config("IN:INT32", ">OUT:INT32", max_batch_size=4)
    instance = maker.open(late_model(body.strip()), config, isolation)
    batch = run(instance, *rows(3))
    assert [outputs_of(batch, index)["OUT"].tolist() for index in range(3)] == [
        [[0]],
        [[1]],
        [[2]],
    ]


def test_a_plain_model_that_drops_a_sender_fails_that_request(maker: Maker, isolation: str) -> None:
    body = "requests[0].get_response_sender(); return [None, good(1)]"
    config = make_config("IN:INT32", ">OUT:INT32", max_batch_size=4)
    instance = maker.open(late_model(body), config, isolation)
    batch = run(instance, *rows(2))
    assert "dropped a response sender" in batch.errors[0].message
    assert outputs_of(batch, 1)["OUT"].tolist() == [[1]]


@pytest.mark.parametrize("number", [1, 2])
def test_a_plain_model_that_sends_twice_has_answered_by_the_first(
    maker: Maker, isolation: str, number: int
) -> None:
    body = """
            sender = requests[0].get_response_sender()
            sender.send(good(1))
            sender.send(good(2))"""
    config = make_config("IN:INT32", ">OUT:INT32", max_batch_size=4)
    instance = maker.open(late_model(body.strip()), config, isolation)
    batch = run(instance, *rows(number))
    assert outputs_of(batch, 0)["OUT"].tolist() == [[1]]
    if number == 2:
        assert "cannot send more than one response" in batch.errors[1].message
    assert 0 not in batch.errors


def test_the_second_send_of_a_plain_model_is_an_error_in_the_model(maker: Maker) -> None:
    body = """
            sender = requests[0].get_response_sender()
            sender.send(good(1))
            try:
                sender.send(good(2))
            except pb_utils.TritonModelException as error:
                assert str(error) == (
                    "Unable to send response. Non-decoupled model cannot send more than one "
                    "response.")
            else:
                assert False"""
    config = make_config("IN:INT32", ">OUT:INT32", max_batch_size=4)
    instance = maker.open(late_model(body.strip()), config, "none")
    assert outputs_of(run(instance, *rows(1)))["OUT"].tolist() == [[1]]


def test_what_a_plain_model_sends_counts_before_what_it_returns(
    maker: Maker, isolation: str
) -> None:
    body = "requests[0].get_response_sender().send(good(1)); return [good(5), good(6)]"
    config = make_config("IN:INT32", ">OUT:INT32", max_batch_size=4)
    instance = maker.open(late_model(body), config, isolation)
    batch = run(instance, *rows(2))
    assert [outputs_of(batch, index)["OUT"].tolist() for index in range(2)] == [[[1]], [[6]]]
