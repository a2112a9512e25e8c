"""The same model as tensors: tritonclient's gRPC stream, HTTP generate and generate_stream."""

import json
import queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from llm_site import Call
from patience import patience
from serving import RunningServer

PROMPT = "The capital of France is"
GREEDY = {"temperature": 0, "max_tokens": 6}
PATH = "/v2/models/small"


def streamed(server: RunningServer, *, stream: bool, sampling: Any = GREEDY) -> list[Any]:
    """The answers of one ModelStreamInfer request, up to the final one."""
    inputs = [
        _tensor("text_input", np.array([PROMPT.encode()], dtype=np.object_), "BYTES"),
        _tensor("stream", np.array([stream]), "BOOL"),
        _tensor(
            "sampling_parameters",
            np.array([json.dumps(sampling).encode()], dtype=np.object_),
            "BYTES",
        ),
        _tensor("exclude_input_in_output", np.array([True]), "BOOL"),
        _tensor("return_finish_reason", np.array([True]), "BOOL"),
        _tensor("return_num_input_tokens", np.array([True]), "BOOL"),
        _tensor("return_num_output_tokens", np.array([True]), "BOOL"),
    ]
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        client.async_stream_infer("small", inputs, enable_empty_final_response=True)
        found = []
        while True:
            answer = answers.get(timeout=patience())
            found.append(answer)
            if isinstance(answer, Exception):
                break
            if answer.get_response().parameters["triton_final_response"].bool_param:
                break
        client.stop_stream()
    return found


def _tensor(name: str, values: Any, datatype: str) -> Any:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def text(answer: Any) -> str:
    values = answer.as_numpy("text_output")
    return "" if values is None else str(values[0].decode())


def test_stream_and_single_answer_have_the_same_text(server: RunningServer, call: Call) -> None:
    pieces = streamed(server, stream=True)
    whole = streamed(server, stream=False)
    assert len(pieces) > 1
    joined = "".join(map(text, pieces))
    assert joined == "".join(map(text, whole))
    body = {"model": "small", "prompt": PROMPT, **GREEDY}
    assert joined == call("/v1/completions", body).json["choices"][0]["text"]


def test_the_last_answer_has_reason_and_counts(server: RunningServer) -> None:
    last = [answer for answer in streamed(server, stream=True) if text(answer)][-1]
    assert last.as_numpy("finish_reason").tolist() == [b"length"]
    assert last.as_numpy("num_input_tokens").tolist() == [5]
    assert last.as_numpy("num_output_tokens").tolist() == [6]


def test_a_wrong_parameter_is_an_error_of_the_stream(server: RunningServer) -> None:
    (error,) = streamed(server, stream=True, sampling={"temperature": -1})
    assert isinstance(error, Exception)
    assert "temperature" in str(error)


def test_generate_takes_plain_parameters(call: Call) -> None:
    reply = call(f"{PATH}/generate", {"text_input": PROMPT, "parameters": GREEDY})
    assert reply.status == 200
    inner = {"text_input": PROMPT, "sampling_parameters": json.dumps(GREEDY)}
    assert call(f"{PATH}/generate", inner).json["text_output"] == reply.json["text_output"]
    assert reply.json["text_output"].startswith(f"{PROMPT} Paris")


def test_top_level_names_of_generate_are_parameters_too(call: Call) -> None:
    short = call(f"{PATH}/generate", {"text_input": PROMPT, "temperature": 0, "max_tokens": 1})
    assert short.json["text_output"] == f"{PROMPT} Paris"


def test_sampling_parameters_go_before_plain_ones(call: Call) -> None:
    body = {
        "text_input": PROMPT,
        "sampling_parameters": '{"max_tokens": 1}',
        "parameters": {"max_tokens": 5, "temperature": 0},
    }
    assert call(f"{PATH}/generate", body).json["text_output"] == f"{PROMPT} Paris"


def test_generate_stream_sends_pieces(call: Call) -> None:
    body = {"text_input": PROMPT, "stream": True, "parameters": GREEDY}
    events = call(f"{PATH}/generate_stream", body).events
    whole = call(f"{PATH}/generate", {"text_input": PROMPT, "parameters": GREEDY}).json
    assert len(events) > 1
    assert PROMPT + "".join(event["text_output"] for event in events) == whole["text_output"]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"sampling_parameters": "{"}, "sampling_parameters"),
        ({"sampling_parameters": "[]"}, "sampling_parameters"),
        ({"sampling_parameters": '{"n": 2}'}, "n"),
        ({"sampling_parameters": '{"guided_json": {}}'}, "guided_json"),
        ({"sampling_parameters": '{"temprature": 0}'}, "temprature"),
        ({"sampling_parameters": '{"structured_outputs": {}}'}, "structured_outputs"),
        ({"sampling_parameters": '{"structured_outputs": {"regex": 5}}'}, "structured_outputs"),
        ({"sampling_parameters": '{"structured_outputs": {"x": "y"}}'}, "structured_outputs.x"),
        ({"sampling_parameters": '{"guided_decoding": {"choice": []}}'}, "guided_decoding.choice"),
        ({"lora": "x"}, "lora"),
    ],
)
def test_generate_refuses(call: Call, parameters: dict[str, Any], named: str) -> None:
    reply = call(f"{PATH}/generate", {"text_input": PROMPT, "parameters": parameters})
    assert reply.status == 400
    assert named in reply.json["error"]


@pytest.mark.parametrize("name", ["structured_outputs", "guided_decoding"])
def test_outputs_match_what_they_must(call: Call, name: str) -> None:
    for wish, allowed in (
        ({"choice": ["north", "south"]}, {"north", "south"}),
        ({"regex": "[ab]"}, {"a", "b"}),
        ({"json": {"enum": [7]}}, {"7"}),
        ({"json": '{"enum": [8]}', "regex": None}, {"8"}),
    ):
        inner = json.dumps({"temperature": 0, "max_tokens": 8, "n": 1, name: wish})
        body = {"text_input": PROMPT, "sampling_parameters": inner, "exclude_input_in_output": True}
        assert call(f"{PATH}/generate", body).json["text_output"] in allowed


def test_logprobs_are_told_of_each_token_and_summed(call: Call) -> None:
    body = {
        "text_input": PROMPT, "return_logprobs": True, "return_cumulative_logprob": True,
        "sampling_parameters": '{"temperature": 0, "max_tokens": 3, "logprobs": 2}',
    }  # fmt: skip
    answer = call(f"{PATH}/generate", body).json
    told = json.loads(answer["logprobs"])
    assert [len(each) for each in told] == [2, 2, 2]
    best = [next(likely for likely in each.values() if likely["rank"] == 1) for each in told]
    assert PROMPT + "".join(likely["decoded_token"] for likely in best) == answer["text_output"]
    total = sum(likely["logprob"] for likely in best)
    assert answer["cumulative_logprob"] == pytest.approx(total, abs=1e-4)
