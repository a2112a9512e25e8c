"""The unmodified `openai` client against the server: all that its users ask of a model."""

import json
import re
from typing import Any

import openai
import pytest

MODEL = "small"
PROMPT = "The capital of France is"
MESSAGES: list[Any] = [{"role": "user", "content": "Write one sentence about the sea."}]


def chat(client: openai.OpenAI, **options: Any) -> Any:
    given = {"messages": MESSAGES, "max_completion_tokens": 12, "temperature": 0, **options}
    return client.chat.completions.create(model=MODEL, **given)


def complete(client: openai.OpenAI, **options: Any) -> Any:
    given = {"prompt": PROMPT, "max_tokens": 8, "temperature": 0, **options}
    return client.completions.create(model=MODEL, **given)


def test_chat_answers_with_text_and_counts(client: openai.OpenAI) -> None:
    answer = chat(client)
    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0


def test_chat_stream_has_the_text_of_the_whole_answer(client: openai.OpenAI) -> None:
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    *pieces, last = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    whole = chat(client)
    assert text == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == "length"
    assert all(chunk.choices[0].finish_reason is None for chunk in pieces[:-1])
    assert all(chunk.usage is None for chunk in pieces)
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_usage_in_each_chunk_grows(client: openai.OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(complete(client, stream=True, stream_options=options))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 8


def test_several_choices_of_a_seed_differ_and_come_again(client: openai.OpenAI) -> None:
    def texts() -> list[str]:
        answer = chat(client, n=3, seed=7, temperature=1.5)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.usage.completion_tokens == 36
        return [choice.message.content for choice in answer.choices]

    first = texts()
    assert len(set(first)) == 3
    assert texts() == first


def test_choices_stream_side_by_side(client: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    for chunk in chat(client, n=2, seed=7, temperature=1.5, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    whole = chat(client, n=2, seed=7, temperature=1.5)
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]


def test_seeds_count(client: openai.OpenAI) -> None:
    texts = {complete(client, seed=seed, temperature=1.5).choices[0].text for seed in (1, 1, 2)}
    assert len(texts) == 2


@pytest.mark.parametrize("stops", [" Paris", ["xyz", "Paris"], ["Par"]])
def test_output_ends_before_a_stop_text(client: openai.OpenAI, stops: Any) -> None:
    choice = complete(client, stop=stops).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.text in ("", " ")
    assert choice.stop_reason in ([stops] if isinstance(stops, str) else stops)


def test_stop_text_is_kept_on_demand(client: openai.OpenAI) -> None:
    extra = {"include_stop_str_in_output": True}
    assert complete(client, stop="Paris", extra_body=extra).choices[0].text == " Paris"


def test_chat_logprobs_are_of_the_tokens_and_sorted(client: openai.OpenAI) -> None:
    choice = chat(client, logprobs=True, top_logprobs=4).choices[0]
    content = choice.logprobs.content
    assert len(content) == 12
    assert "".join(each.token for each in content) == choice.message.content
    for each in content:
        values = [top.logprob for top in each.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert len(values) == 4
        # Greedy: no token is likelier.
        assert each.logprob == values[0]
        assert bytes(each.bytes).decode() == each.token


def test_streamed_logprobs_are_those_of_the_whole_answer(client: openai.OpenAI) -> None:
    streamed = [
        entry.logprob
        for chunk in chat(client, logprobs=True, stream=True)
        if chunk.choices[0].logprobs is not None
        for entry in chunk.choices[0].logprobs.content
    ]
    whole = chat(client, logprobs=True).choices[0].logprobs.content
    assert streamed == pytest.approx([entry.logprob for entry in whole], abs=1e-3)


def test_logit_bias_forces_and_forbids(client: openai.OpenAI) -> None:
    (paris,) = tokens(client, " Paris")
    assert complete(client, max_tokens=1).choices[0].text == " Paris"
    banned = complete(client, max_tokens=1, logit_bias={str(paris): -100})
    assert banned.choices[0].text != " Paris"
    forced = complete(client, prompt="One two", max_tokens=3, logit_bias={str(paris): 100})
    assert forced.choices[0].text == " Paris Paris Paris"


def test_json_schema_holds(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "town", "schema": schema}}
    answer = chat(client, response_format=form, max_completion_tokens=60)
    assert answer.choices[0].finish_reason == "stop"
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"city", "big"}
    assert isinstance(found["big"], bool)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"choice": ["red", "green \u00fc", 'a "quoted" one']}, 'red|green \u00fc|a "quoted" one'),
        ({"grammar": 'start: "<" /[0-9]{2}/ ">"'}, "<[0-9]{2}>"),
        ({"json": {"type": "integer", "minimum": 5, "maximum": 7}}, "[567]"),
    ],
)
def test_structured_outputs_hold(client: openai.OpenAI, constraint: Any, pattern: str) -> None:
    answer = chat(
        client,
        temperature=1,
        max_completion_tokens=40,
        extra_body={"structured_outputs": constraint},
    )
    assert answer.choices[0].finish_reason == "stop"
    assert re.fullmatch(pattern, answer.choices[0].message.content)


def test_models_are_listed_and_told_one_by_one(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object) == (MODEL, "model")
    assert client.models.retrieve(MODEL) == model
    assert model.model_dump()["max_model_len"] == 8192


def test_errors_are_the_clients_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        chat(client, temperature=-1)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="nothing", prompt="a")
    assert unknown.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")


def test_echo_scores_a_prompt_without_output_as_lm_eval_asks(client: openai.OpenAI) -> None:
    choice = complete(client, echo=True, logprobs=1, max_tokens=0).choices[0]
    scored = choice.logprobs
    assert choice.text == PROMPT == "".join(scored.tokens)
    assert scored.token_logprobs[0] is None
    assert scored.top_logprobs[0] is None
    assert all(value < 0 for value in scored.token_logprobs[1:])
    assert scored.text_offset == [
        len("".join(scored.tokens[:i])) for i in range(len(scored.tokens))
    ]
    for token, value, top in zip(
        scored.tokens[1:], scored.token_logprobs[1:], scored.top_logprobs[1:], strict=True
    ):
        assert top[token] == value
        assert max(top.values()) >= value


def test_echo_with_output_scores_both(client: openai.OpenAI) -> None:
    choice = complete(client, echo=True, logprobs=0, max_tokens=2).choices[0]
    assert choice.text.startswith(f"{PROMPT} Paris")
    assert "".join(choice.logprobs.tokens) == choice.text
    (plain,) = complete(client, logprobs=0, max_tokens=2).choices
    assert choice.logprobs.token_logprobs[-2:] == pytest.approx(
        plain.logprobs.token_logprobs, abs=1e-2
    )
    assert plain.logprobs.text_offset == [0, len(" Paris")]


def test_token_ids_are_the_prompt_they_stand_for(client: openai.OpenAI) -> None:
    ids = tokens(client, PROMPT)
    assert complete(client, prompt=ids).choices[0].text == complete(client).choices[0].text
    assert complete(client, prompt=ids, echo=True).choices[0].text.startswith(PROMPT)


def test_choices_of_several_prompts_come_in_their_order(client: openai.OpenAI) -> None:
    prompts = [PROMPT, "One two three"]
    alone = [complete(client, prompt=prompt).choices[0].text for prompt in prompts]
    answer = complete(client, prompt=prompts, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [alone[0], alone[0], alone[1], alone[1]]
    by_ids = complete(client, prompt=[tokens(client, prompt) for prompt in prompts])
    assert [choice.text for choice in by_ids.choices] == alone


def test_completions_stream_the_text_of_the_whole_answer(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == (complete(client).choices[0].text)
    assert [chunk.object for chunk in chunks] == ["text_completion"] * len(chunks)


def test_completions_have_16_tokens_unless_asked(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_cached_prompts_are_told_and_change_nothing(client: openai.OpenAI) -> None:
    prompt = "A long story that nobody has told before. " * 12
    first, second = (complete(client, prompt=prompt) for _ in range(2))
    assert first.choices[0].text == second.choices[0].text
    assert second.usage.prompt_tokens_details.cached_tokens >= 64
    assert second.usage.prompt_tokens_details.cached_tokens < second.usage.prompt_tokens


def test_text_parts_are_a_message(client: openai.OpenAI) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}]
    assert chat(client, messages=parts).choices[0] == chat(client).choices[0]


def test_tokenize_and_detokenize_are_each_others_inverse(client: openai.OpenAI) -> None:
    ids = tokens(client, "Gr\u00fc\u00dfe, \u4e09\u811a\u67b6!")
    back = client.post("/../detokenize", body={"tokens": ids}, cast_to=object)
    assert back == {"prompt": "Gr\u00fc\u00dfe, \u4e09\u811a\u67b6!"}


def tokens(client: openai.OpenAI, text: str) -> list[int]:
    answer: Any = client.post("/../tokenize", body={"prompt": text}, cast_to=object)
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 8192
    ids: list[int] = answer["tokens"]
    return ids
