"""huggingface_hub's InferenceClient, unmodified, against the server."""

from functools import partial
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError
from serving import RunningServer

PROMPT = "The capital of France is"


@pytest.fixture
def client(server: RunningServer) -> InferenceClient:
    return InferenceClient(base_url=f"http://{server.http}")


@pytest.fixture
def tgi(server: RunningServer) -> InferenceClient:
    return InferenceClient(model=f"http://{server.http}")


def test_text_generation_gives_text(tgi: InferenceClient) -> None:
    assert "Paris" in tgi.text_generation(PROMPT, max_new_tokens=5)


def test_text_generation_with_details_gives_tokens(tgi: InferenceClient) -> None:
    output = tgi.text_generation(
        PROMPT, max_new_tokens=5, details=True, decoder_input_details=True, top_n_tokens=2
    )
    assert output.details is not None
    assert output.details.finish_reason == "length"
    assert output.details.generated_tokens == len(output.details.tokens) == 5
    assert "".join(token.text for token in output.details.prefill) == PROMPT
    assert output.details.top_tokens is not None


def test_text_generation_streams_the_same_text(tgi: InferenceClient) -> None:
    pieces = list(tgi.text_generation(PROMPT, max_new_tokens=8, stream=True))
    assert len(pieces) == 8
    assert "".join(pieces) == tgi.text_generation(PROMPT, max_new_tokens=8)


def test_text_generation_streams_details(tgi: InferenceClient) -> None:
    events = list(tgi.text_generation(PROMPT, max_new_tokens=4, stream=True, details=True))
    assert [event.index for event in events] == [1, 2, 3, 4]
    assert events[-1].details is not None
    assert events[-1].details.input_length == 5
    assert events[-1].generated_text == "".join(event.token.text for event in events)


def test_wrong_parameter_is_a_validation_error(tgi: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="top_k"):
        tgi.text_generation(PROMPT, top_k=0, max_new_tokens=1)


def test_chat_completion_answers_and_streams_alike(client: InferenceClient) -> None:
    messages: list[Any] = [{"role": "user", "content": "Say yes."}]
    ask = partial(client.chat_completion, messages, max_tokens=8, temperature=0.0)
    whole = ask(model="small")
    assert whole.usage.completion_tokens <= 8
    pieces = ask(model="small", stream=True)
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
