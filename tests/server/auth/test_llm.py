"""Keys and language models: OpenAI's client unchanged, tokens of a key counted and limited."""

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import numpy as np
import openai
import pytest
import tritonclient.grpc as grpcclient
from auth_site import Keys
from llm_site import caller, write_small_llm
from patience import patience
from serving import RunningServer, start_server
from tritonclient.utils import InferenceServerException

CONFIG = """
backend: "llm"
parameters { key: "kv_cache_bytes" value { string_value: "8388608" } }
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys") / "keys.toml")
    made.add("free", "infer")
    made.add("other", "infer", more='models = ["other"]')
    made.add("admin", "admin")
    made.add("messages", "infer", more="tokens_per_minute = 60")
    for name in ("whole", "stream", "tensors", "background"):
        made.add(name, "infer", more="tokens_per_minute = 10")
    return made


@pytest.fixture(scope="module")
def server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("models")
    write_small_llm(repository, "small", CONFIG)
    opened = start_server(repository, f"--auth-keys-file={keys.path}")
    yield opened
    opened.end()


def client(server: RunningServer, secret: str) -> openai.OpenAI:
    url = f"http://{server.http}/v1"
    return openai.OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=patience())


def test_openais_client_works_with_its_api_key(server: RunningServer, keys: Keys) -> None:
    with client(server, keys.secrets["free"]) as made:
        assert [model.id for model in made.models.list()] == ["small"]
        answer = made.completions.create(model="small", prompt="Once", max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 2


@pytest.mark.more_of("O01", "O02")
def test_openais_client_raises_its_own_errors(server: RunningServer, keys: Keys) -> None:
    with client(server, "sk-wrong") as made:
        with pytest.raises(openai.AuthenticationError) as wrong:
            made.models.list()
        assert wrong.value.code == "invalid_api_key"
    for name in ("admin", "other"):
        with client(server, keys.secrets[name]) as made:
            with pytest.raises(openai.PermissionDeniedError) as denied:
                made.completions.create(model="small", prompt="Once", max_tokens=2)
            assert denied.value.code == "insufficient_permissions"


@pytest.mark.more_of("O01", "O02")
def test_anthropics_client_has_its_keys_checked_and_its_tokens_counted_once(
    server: RunningServer, keys: Keys
) -> None:
    def make(secret: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(
            base_url=f"http://{server.http}", api_key=secret, max_retries=0, timeout=patience()
        )

    asked: Any = {"model": "small", "messages": [{"role": "user", "content": "Once upon a time"}]}
    for secret, error, kind in (
        ("sk-wrong", anthropic.AuthenticationError, "authentication_error"),
        (keys.secrets["admin"], anthropic.PermissionDeniedError, "permission_error"),
        (keys.secrets["other"], anthropic.PermissionDeniedError, "permission_error"),
    ):
        with make(secret) as client, pytest.raises(error) as refused:
            client.messages.create(max_tokens=2, **asked)
        assert refused.value.type == kind
    with make(keys.secrets["messages"]) as client:
        counted = client.messages.with_raw_response.count_tokens(**asked)
        assert counted.headers["x-ratelimit-remaining-tokens"] == "60"
        began_s = time.monotonic()
        told = client.messages.with_raw_response.create(max_tokens=16, **asked)
        usage = told.parse().usage
        spent = usage.input_tokens + usage.output_tokens
        left = int(told.headers["x-ratelimit-remaining-tokens"])
        # Meanwhile one a second comes back.
        assert 60 - spent <= left <= 61 - spent + (time.monotonic() - began_s)


def test_models_of_others_are_not_listed(server: RunningServer, keys: Keys) -> None:
    with client(server, keys.secrets["other"]) as made:
        assert list(made.models.list()) == []


def test_a_key_that_has_overdrawn_its_tokens_waits(server: RunningServer, keys: Keys) -> None:
    began_s = time.monotonic()
    with client(server, keys.secrets["whole"]) as made:
        told = made.completions.with_raw_response.create(
            model="small", prompt="Once upon a time", max_tokens=16, extra_body={"ignore_eos": True}
        )
        assert told.headers["x-ratelimit-limit-tokens"] == "10"
        assert told.headers["x-ratelimit-remaining-tokens"] == "0"
        with pytest.raises(openai.RateLimitError) as refused:
            made.completions.create(model="small", prompt="Once", max_tokens=2)
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.type == "tokens"
        # 4 of the prompt and 16 of the answer, of which 10 were free: 10 and 1 more to wait for.
        # Some of it may have come back while the machine was busy.
        wait_s = int(refused.value.response.headers["retry-after"])
        assert wait_s <= 66 <= wait_s + time.monotonic() - began_s + 2
        assert made.models.retrieve("small").id == "small"


def test_streams_are_counted_too(server: RunningServer, keys: Keys) -> None:
    with client(server, keys.secrets["stream"]) as made:
        stream = made.completions.create(
            model="small", prompt="Once upon a time", max_tokens=16, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        assert len(list(stream)) > 1
        with pytest.raises(openai.RateLimitError):
            list(made.completions.create(model="small", prompt="Once", stream=True))


def test_a_response_in_the_background_is_counted_once(server: RunningServer, keys: Keys) -> None:
    with client(server, keys.secrets["background"]) as made:
        begun = made.responses.create(
            model="small", input="Once", max_output_tokens=16, background=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        server.wait_until(
            lambda: made.responses.retrieve(begun.id).status == "incomplete", "complete"
        )
        usage = made.responses.retrieve(begun.id).usage
        assert usage is not None
        with pytest.raises(openai.RateLimitError) as refused:
            made.responses.create(model="small", input="Once", background=True)
    # 10 were free: the rest is to wait for, and 1 more, at 6 s each; twice as much would be longer.
    waited_for = 6 * (usage.total_tokens - 10 + 1)
    assert waited_for / 2 < int(refused.value.response.headers["retry-after"]) <= waited_for


def test_the_tensor_form_is_counted_too(server: RunningServer, keys: Keys) -> None:
    given = grpcclient.InferInput("text_input", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"Once upon a time, a long time ago, there was"], object))
    header = {"authorization": f"Bearer {keys.secrets['tensors']}"}
    ends: list[InferenceServerException | None] = []
    for _ in range(2):
        with grpcclient.InferenceServerClient(server.grpc) as made:
            made.start_stream(lambda result, error: ends.append(error), headers=header)
            made.async_stream_infer("small", [given])
            made.stop_stream()
    assert ends[0] is None
    assert "10 tokens per minute" in str(ends[-1])


def test_a_key_alone_opens_generation_over_tgi(server: RunningServer, keys: Keys) -> None:
    body = {"inputs": "Once", "parameters": {"max_new_tokens": 2}}
    call = caller(server)
    assert call("/generate", body).json["error_type"] == "authentication"
    answer = call("/generate", body, **keys.header("free"))
    assert answer.status == 200, answer.body
