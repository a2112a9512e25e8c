"""A model that has learnt something, through each API: it says what it knows and ends by itself."""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from huggingface_hub import InferenceClient
from llm_site import Call, caller
from patience import patience
from serving import RunningServer

MODEL = "smollm2"
PROMPT = "The capital of France is"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def call(real_language_server: RunningServer) -> Call:
    return caller(real_language_server)


@pytest.fixture
def client(real_language_server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://{real_language_server.http}/v1", api_key="none", timeout=patience()
    ) as made:
        yield made


def test_prompts_go_on_alike_in_every_api(
    client: openai.OpenAI, call: Call, real_language_server: RunningServer
) -> None:
    completion = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0)
    text = completion.choices[0].text
    assert text.startswith(" Paris")
    hub = InferenceClient(model=f"http://{real_language_server.http}")
    assert hub.text_generation(PROMPT, max_new_tokens=4) == text
    body = {"text_input": PROMPT, "parameters": {"max_tokens": 4, "temperature": 0}}
    assert call(f"/v2/models/{MODEL}/generate", body).json["text_output"] == PROMPT + text


def test_chats_are_answered_alike_in_every_api_and_end_by_themselves(
    client: openai.OpenAI, real_language_server: RunningServer
) -> None:
    chat = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    text = chat.choices[0].message.content
    assert text is not None
    assert chat.choices[0].finish_reason == "stop"
    assert "Paris" in text
    assert "<|im_end|>" not in text
    response = client.responses.create(model=MODEL, input=QUESTION, temperature=0)
    assert (response.status, response.output_text) == ("completed", text)
    with anthropic.Anthropic(
        base_url=f"http://{real_language_server.http}", api_key="none", timeout=patience()
    ) as other:
        message = other.messages.create(
            model=MODEL, messages=QUESTION, max_tokens=200, extra_body={"temperature": 0}
        )
    assert message.stop_reason == "end_turn"
    assert [block.text for block in message.content if block.type == "text"] == [text]


def test_the_time_of_a_token_is_told(call: Call) -> None:
    headers = call("/generate", {"inputs": PROMPT, "parameters": {"max_new_tokens": 3}}).headers
    assert 0 < int(headers["x-time-per-token"]) <= int(headers["x-inference-time"])
