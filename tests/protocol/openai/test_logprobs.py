"""Log probabilities over the API, as evaluation harnesses ask for them, are `transformers`'."""

import json
import math
from typing import Any

import pytest
from llm_site import Call
from real_engine import hub_logprobs, real_tokenizer
from serving import RunningServer
from torch import Tensor

CONTEXT, CONTINUATION = "The capital of France is", " Paris, a city of"
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def server(real_language_server: RunningServer) -> RunningServer:
    return real_language_server


def encoded(text: str) -> list[int]:
    return real_tokenizer().encode(text, add_special_tokens=False)


def is_rank(rank: int, row: Tensor, token: int) -> bool:
    """Whether this is the place of the token among the likeliest. Those that lie closer together
    than the tolerance may come in any order: their sums were made in another one."""
    likelier, as_likely = (row > row[token] + TOLERANCE).sum(), (row > row[token] - TOLERANCE).sum()
    return bool(likelier < rank <= as_likely)


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


@pytest.mark.parametrize("num_top", [0, 3])
def test_ranks_of_prompt_tokens_go_beyond_the_likeliest(call: Call, num_top: int) -> None:
    ids = encoded(CONTEXT + CONTINUATION)
    (choice,) = scored(call, ids, max_tokens=1, prompt_logprobs=num_top)
    first, *told = choice["prompt_logprobs"]
    assert first is None
    ranks = []
    for token, row, likely in zip(ids[1:], hub_logprobs(ids), told, strict=False):
        own = likely[str(token)]
        assert own["logprob"] == pytest.approx(float(row[token]), abs=TOLERANCE)
        assert is_rank(own["rank"], row, token)
        best = [str(other) for other in row.topk(num_top).indices.tolist()]
        assert [likely[other]["rank"] for other in best] == list(range(1, num_top + 1))
        ranks.append(own["rank"])
    # There are some of each kind, or this would show nothing.
    assert min(ranks) == 1
    assert max(ranks) > 3


def test_sampled_token_s_rank_is_told_in_the_tensor_form(call: Call) -> None:
    body = {
        "text_input": CONTEXT, "return_logprobs": True, "exclude_input_in_output": True,
        "sampling_parameters": '{"temperature": 2, "seed": 3, "max_tokens": 8, "logprobs": 1}',
    }  # fmt: skip
    reply = call("/v2/models/smollm2/generate", body)
    assert reply.status == 200, reply.body
    # The token that was drawn comes first.
    drawn = [next(iter(each.items())) for each in json.loads(reply.json["logprobs"])]
    context = encoded(CONTEXT)
    rows = hub_logprobs([*context, *(int(token) for token, _ in drawn)])[len(context) - 1 : -1]
    for (token, told), row in zip(drawn, rows, strict=True):
        assert is_rank(told["rank"], row, int(token))
    assert max(told["rank"] for _, told in drawn) > 1


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


def test_tokens_that_are_asked_of_are_told_instead_of_the_likeliest(call: Call) -> None:
    asked = {"model": "smollm2", "prompt": CONTEXT, "temperature": 0, "max_tokens": 2}
    wish = {"logprob_token_ids": [4000, 17, 12000], "return_tokens_as_token_ids": True}
    choice = call("/v1/completions", asked | wish | {"logprobs": 1}).json["choices"][0]
    told = choice["logprobs"]
    ids = encoded(CONTEXT + choice["text"])
    for row, token, top in zip(
        hub_logprobs(ids)[len(ids) - 3 : -1], ids[-2:], told["top_logprobs"], strict=True
    ):
        assert top == {
            f"token_id:{each}": pytest.approx(float(row[each]), abs=TOLERANCE)
            for each in (token, 4000, 17, 12000)
        }
    chat = {"model": "smollm2", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    body = chat | wish | {"logprobs": True, "top_logprobs": 5}
    (entry,) = call("/v1/chat/completions", body).json["choices"][0]["logprobs"]["content"]
    assert [top["token"] for top in entry["top_logprobs"]] == [
        "token_id:4000", "token_id:17", "token_id:12000",
    ]  # fmt: skip


@pytest.mark.rows("O52")
@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({}, "it is allowed only with logprobs"),
        ({"logprobs": 1, "logprob_token_ids": [49_152]}, "is not in the vocabulary"),
        ({"logprobs": 1, "logprob_token_ids": [1] * 129}, "at most 128"),
        ({"logprobs": 1, "logprob_token_ids": [-1]}, "greater than or equal to 0"),
        ({"logprobs": 1, "max_tokens": 0, "echo": True}, "no token is chosen"),
    ],
)
def test_tokens_that_cannot_be_told_are_refused(
    call: Call, wish: dict[str, object], told: str
) -> None:
    asked = {"model": "smollm2", "prompt": "a", "max_tokens": 1, "logprob_token_ids": [1]}
    reply = call("/v1/completions", asked | wish)
    assert reply.status == 400
    assert reply.json["error"]["message"].startswith("logprob_token_ids")
    assert told in reply.json["error"]["message"]
