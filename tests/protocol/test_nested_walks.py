"""What a Python model may do with the responses of a decoupled one: walk them in a coroutine, count
them, walk them again, and tell their maker that it has enough."""

from collections.abc import Callable

import pytest
import requests
from nested_models import body, path, write_python
from patience import patience
from serving import RunningServer

DECOUPLED = "model_transaction_policy { decoupled: true }\n"
MAKER = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self._send(request, request.get_response_sender())

    def _send(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        count, heeds, ends_apart = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        for number in range(int(count)):
            if heeds and request.is_cancelled():
                error = pb_utils.TritonError("enough", pb_utils.TritonError.CANCELLED)
                return sender.send(pb_utils.InferenceResponse(error=error), flags=final)
            y = pb_utils.Tensor("y", np.array([number], np.float32))
            is_last = number + 1 == count and not ends_apart
            sender.send(pb_utils.InferenceResponse([y]), flags=final if is_last else 0)
            time.sleep(0.01)
        if ends_apart:
            sender.send(flags=final)
"""
"""x: how many responses; whether it heeds a cancellation; whether the end comes by itself."""
WALKER = """
import numpy as np
import triton_python_backend_utils as pb_utils


def asked(request):
    return pb_utils.InferenceRequest(
        model_name="maker", requested_output_names=["y"],
        inputs=[pb_utils.get_input_tensor_by_name(request, "x")])


def value(response):
    if response.has_error():
        return -float(response.error().code())
    return response.output_tensors()[0].as_numpy()[0]


class TritonPythonModel:
    async def execute(self, requests):
        answers = []
        for request in requests:
            word = pb_utils.get_input_tensor_by_name(request, "COMMAND").as_numpy()[0].decode()
            y = np.asarray(await getattr(self, "do_" + word)(asked(request)), np.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return answers

    async def do_for(self, question):
        return [value(each) for each in await question.async_exec(decoupled=True)]

    async def do_async_for(self, question):
        return [value(each) async for each in await question.async_exec(decoupled=True)]

    async def do_twice(self, question):
        responses = await question.async_exec(decoupled=True)
        first = value(next(responses))
        rest = [value(each) for each in responses]
        again = [value(each) for each in responses]
        assert [first, *rest] == again and list(responses) == list(responses)
        assert next(responses, None) is None
        return [len(responses), *again]

    async def do_mixed(self, question):
        responses = await question.async_exec(decoupled=True)
        first = value(await anext(responses))
        return [first, *(value(each) for each in responses)]

    async def do_cancel(self, question):
        return self._cancelled(await question.async_exec(decoupled=True))

    async def do_cancel_sync(self, question):
        return self._cancelled(question.exec(decoupled=True))

    def _cancelled(self, responses):
        found = []
        for response in responses:
            found.append(value(response))
            if len(found) == 3:
                responses.cancel()
        responses.cancel()
        return found
"""
CANCELLED = -7


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("walks")
    write_python(repository, "maker", MAKER, more=DECOUPLED)
    for isolation in ("process", "none"):
        write_python(repository, f"walker_{isolation}", WALKER, isolation=isolation)
    return serve(repository, "--model-control-mode=none")


@pytest.fixture(params=["process", "none"])
def walker(request: pytest.FixtureRequest) -> str:
    return f"walker_{request.param}"


def walk(server: RunningServer, walker: str, command: str, *x: float) -> list[float]:
    answer = requests.post(path(server, walker), body(x, command), timeout=patience()).json()
    assert "error" not in answer, answer["error"]
    found: list[float] = answer["outputs"][0]["data"]
    return found


@pytest.mark.parametrize("word", ["for", "async_for", "mixed"])
def test_a_coroutine_walks_a_stream_with_either_loop(
    server: RunningServer, walker: str, word: str
) -> None:
    assert walk(server, walker, word, 20, 0, 1) == list(range(20))


def test_a_stream_that_has_ended_can_be_counted_and_walked_again(
    server: RunningServer, walker: str
) -> None:
    assert walk(server, walker, "twice", 5, 0, 1) == [5, *range(5)]


@pytest.mark.parametrize("word", ["cancel", "cancel_sync"])
def test_a_cancelled_stream_ends_with_the_error_of_a_maker_that_heeds_it(
    server: RunningServer, walker: str, word: str
) -> None:
    found = walk(server, walker, word, 500, 1, 1)
    assert found[-1] == CANCELLED
    assert found[:-1] == list(range(len(found) - 1))
    assert 3 <= len(found) - 1 < 500


@pytest.mark.parametrize("word", ["cancel", "cancel_sync"])
@pytest.mark.parametrize("ends_apart", [0, 1])
def test_a_cancelled_stream_is_whole_where_its_maker_goes_on(
    server: RunningServer, walker: str, word: str, ends_apart: int
) -> None:
    assert walk(server, walker, word, 40, 0, ends_apart) == list(range(40))
