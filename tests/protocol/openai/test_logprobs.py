"""Log probabilities over the API, as evaluation harnesses ask for them, are `transformers`'."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from llm_site import Call, caller, write_llm
from real_engine import hub_logprobs, real_tokenizer
from serving import RunningServer

CONFIG = """
backend: "llm"
parameters { key: "dtype" value { string_value: "float32" } }
parameters { key: "kv_cache_bytes" value { string_value: "134217728" } }
parameters { key: "max_model_len" value { string_value: "512" } }
parameters { key: "num_threads" value { string_value: "1" } }
"""
CONTEXT, CONTINUATION = "The capital of France is", " Paris, a city of"
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., RunningServer]) -> Call:
    repository = tmp_path_factory.mktemp("models")
    write_llm(repository, "smollm2", CONFIG)
    return caller(serve(repository))


def encoded(text: str) -> list[int]:
    return real_tokenizer().encode(text, add_special_tokens=False)


def scored(call: Call, prompt: object, **fields: object) -> Any:
    body = {"model": "smollm2", "prompt": prompt, "temperature": 0, "seed": 1, **fields}
    reply = call("/v1/completions", body)
    assert reply.status == 200, reply.body
    return reply.json["choices"]


@pytest.mark.parametrize("max_tokens", [0, 1])
@pytest.mark.parametrize("as_ids", [True, False])
def test_loglikelihood_of_a_continuation(call: Call, max_tokens: int, *, as_ids: bool) -> None:
    # What lm-evaluation-harness sends to a completions API, and how it reads the answer.
    ids, start = encoded(CONTEXT + CONTINUATION), len(encoded(CONTEXT))
    prompt = ids if as_ids else CONTEXT + CONTINUATION
    (choice,) = scored(call, prompt, max_tokens=max_tokens, echo=True, logprobs=1)
    told = choice["logprobs"]
    assert len(told["token_logprobs"]) == len(ids) + max_tokens
    assert told["token_logprobs"][0] is None
    wanted = hub_logprobs(ids)
    exact = [float(wanted[place - 1, ids[place]]) for place in range(1, len(ids))]
    assert told["token_logprobs"][1 : len(ids)] == pytest.approx(exact, abs=TOLERANCE)
    is_greedy = [
        max(top, key=top.__getitem__) == token
        for token, top in zip(told["tokens"], told["top_logprobs"], strict=True)
        if top is not None
    ]
    best = wanted.argmax(dim=-1).tolist()
    assert is_greedy[start - 1 : len(ids) - 1] == [
        best[place - 1] == ids[place] for place in range(start, len(ids))
    ]


def test_prompts_in_one_request_are_scored_each_for_itself(call: Call) -> None:
    prompts = [encoded(CONTEXT), encoded("One, two, three, four, five"), encoded("def f(x):")]
    choices = scored(call, prompts, max_tokens=0, echo=True, logprobs=0)
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    for ids, choice in zip(prompts, choices, strict=True):
        wanted = hub_logprobs(ids)
        exact = [float(wanted[place - 1, ids[place]]) for place in range(1, len(ids))]
        assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(exact, abs=TOLERANCE)


def test_likeliest_tokens_of_an_output(call: Call) -> None:
    (choice,) = scored(call, CONTEXT, max_tokens=3, logprobs=4)
    ids = encoded(CONTEXT + choice["text"])
    wanted = hub_logprobs(ids)[len(ids) - 4 : -1]
    for row, top in zip(wanted, choice["logprobs"]["top_logprobs"], strict=True):
        assert sorted(top.values(), reverse=True) == pytest.approx(
            row.topk(4).values.tolist(), abs=TOLERANCE
        )


def test_chat_tells_probabilities_below_one(call: Call) -> None:
    body = {
        "model": "smollm2", "max_tokens": 4, "temperature": 0, "logprobs": True,
        "top_logprobs": 3, "messages": [{"role": "user", "content": "Name a colour."}],
    }  # fmt: skip
    (choice,) = call("/v1/chat/completions", body).json["choices"]
    for entry in choice["logprobs"]["content"]:
        assert entry["logprob"] == pytest.approx(entry["top_logprobs"][0]["logprob"])
        assert sum(math.exp(each["logprob"]) for each in entry["top_logprobs"]) < 1
        assert bytes(entry["bytes"]).decode(errors="replace")
