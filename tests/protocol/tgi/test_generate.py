"""/generate, /generate_stream and POST /: what TGI's contract says of answers and streams."""

import http.client
from typing import Any

import pytest
from llm_site import Call, Reply
from patience import patience
from serving import RunningServer

PROMPT = "The capital of France is"


def generate(call: Call, path: str = "/generate", **parameters: Any) -> Reply:
    return call(path, {"inputs": PROMPT, "parameters": {"max_new_tokens": 6, **parameters}})


def test_greedy_text_is_the_same_each_time_and_alone_in_the_answer(call: Call) -> None:
    first, second = generate(call), generate(call)
    assert first.status == 200
    assert first.json == second.json
    assert list(first.json) == ["generated_text"]
    assert "Paris" in first.json["generated_text"]


def test_root_answers_a_list_of_what_generate_answers(call: Call) -> None:
    assert generate(call, "/").json == [generate(call).json]


def test_root_streams_when_the_body_says_so(call: Call) -> None:
    body = {"inputs": PROMPT, "stream": True, "parameters": {"max_new_tokens": 3}}
    reply = call("/", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert len(reply.events) == 3


def test_details_name_every_token_and_why_it_ended(call: Call) -> None:
    details = generate(call, details=True).json["details"]
    assert details["finish_reason"] == "length"
    assert details["generated_tokens"] == len(details["tokens"]) == 6
    assert details["seed"] is None
    assert details["prefill"] == details["top_tokens"] == []
    for token in details["tokens"]:
        assert set(token) == {"id", "text", "logprob", "special"}
        assert token["logprob"] <= 0


def test_texts_of_tokens_are_the_output(call: Call) -> None:
    answer = generate(call, details=True).json
    assert (
        "".join(token["text"] for token in answer["details"]["tokens"])
        == (answer["generated_text"])
    )


def test_decoder_input_details_score_the_prompt(call: Call) -> None:
    prefill = generate(call, details=True, decoder_input_details=True).json["details"]["prefill"]
    assert "".join(token["text"] for token in prefill) == PROMPT
    assert prefill[0]["logprob"] is None
    assert all(token["logprob"] < 0 for token in prefill[1:])


def test_top_tokens_begin_with_the_token_that_greedy_chooses(call: Call) -> None:
    details = generate(call, details=True, top_n_tokens=3).json["details"]
    assert [len(each) for each in details["top_tokens"]] == [3] * 6
    assert [each[0]["id"] for each in details["top_tokens"]] == [
        token["id"] for token in details["tokens"]
    ]


def test_best_of_tells_the_better_of_two_first(call: Call) -> None:
    details = generate(call, details=True, best_of=2, do_sample=True).json["details"]
    (other,) = details["best_of_sequences"]
    assert other["seed"] != details["seed"]

    def mean(tokens: list[dict[str, Any]]) -> float:
        return float(sum(token["logprob"] for token in tokens)) / len(tokens)

    assert mean(details["tokens"]) >= mean(other["tokens"])


def test_seed_that_was_chosen_is_told_and_gives_the_same_text_again(call: Call) -> None:
    first = generate(call, details=True, temperature=1.5).json
    seed = first["details"]["seed"]
    assert generate(call, temperature=1.5, seed=seed).json == {
        "generated_text": first["generated_text"]
    }


def test_typical_p_keeps_the_output_within_the_typical_tokens(call: Call) -> None:
    # So narrow a share leaves one token at each place: whatever the seed, one text.
    texts = {
        generate(call, typical_p=0.0001, seed=seed).json["generated_text"] for seed in range(3)
    }
    assert len(texts) == 1


def test_return_full_text_begins_with_the_prompt(call: Call) -> None:
    assert generate(call, return_full_text=True).json["generated_text"] == (
        PROMPT + generate(call).json["generated_text"]
    )


def test_truncate_keeps_the_end_of_the_prompt(call: Call) -> None:
    long = "Numbers, words and other things. " * 5 + PROMPT
    num_kept = int(generate(call).headers["x-prompt-tokens"])
    parameters = {"truncate": num_kept, "details": True, "decoder_input_details": True}
    reply = call("/generate", {"inputs": long, "parameters": {"max_new_tokens": 1, **parameters}})
    assert reply.headers["x-prompt-tokens"] == str(num_kept)
    kept = "".join(token["text"] for token in reply.json["details"]["prefill"])
    assert long.endswith(kept)


def test_stop_sequence_ends_the_output_and_is_part_of_it(call: Call) -> None:
    answer = generate(call, details=True, stop=["Paris"], max_new_tokens=20).json
    assert answer["generated_text"].endswith("Paris")
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_grammar_holds_for_the_whole_output(call: Call) -> None:
    grammar = {"type": "regex", "value": "[0-9]{3}"}
    answer = generate(call, details=True, grammar=grammar).json
    assert len(answer["generated_text"]) == 3
    assert answer["generated_text"].isdigit()
    assert answer["details"]["finish_reason"] == "eos_token"
    assert answer["details"]["tokens"][-1]["special"]


def test_grammar_of_a_json_schema_gives_a_document_of_it(call: Call) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}
    for grammar in (
        {"type": "json", "value": {**schema, "additionalProperties": False}},
        {
            "type": "json_schema",
            "value": {"name": "x", "schema": {**schema, "additionalProperties": False}},
        },
    ):
        text = generate(call, grammar=grammar, max_new_tokens=40).json["generated_text"]
        assert '"n"' in text


def test_headers_tell_tokens_and_times(call: Call) -> None:
    headers = generate(call).headers
    assert headers["x-generated-tokens"] == "6"
    assert headers["x-compute-characters"] == str(len(PROMPT))
    assert headers["x-compute-type"] == "cpu"
    assert float(headers["x-compute-time"]) > 0
    parts = ("x-validation-time", "x-queue-time", "x-inference-time")
    assert abs(sum(int(headers[part]) for part in parts) - int(headers["x-total-time"])) <= 3
    assert 0 <= int(headers["x-time-per-token"]) <= int(headers["x-inference-time"])


def test_stream_has_an_event_for_each_token_and_tells_the_end_in_the_last(call: Call) -> None:
    reply = generate(call, "/generate_stream")
    assert reply.headers["x-accel-buffering"] == "no"
    events = reply.events
    assert [event["index"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert all(event["generated_text"] is None for event in events[:-1])
    assert all(event["details"] is None for event in events[:-1])
    last = events[-1]
    assert last["generated_text"] == generate(call).json["generated_text"]
    assert "".join(event["token"]["text"] for event in events) == last["generated_text"]
    assert last["details"]["finish_reason"] == "length"
    assert last["details"]["generated_tokens"] == 6
    assert last["details"]["input_length"] == 5


@pytest.mark.parametrize("num_words", [0, 1, 3])
def test_streamed_texts_of_plain_tokens_are_the_output(call: Call, num_words: int) -> None:
    """Up to a stop text of so many words, if any."""
    words = generate(call, max_new_tokens=24).json["generated_text"].split()
    stop = [" ".join(words[:num_words])] if num_words else []
    parameters = {"max_new_tokens": 24, "stop": stop}
    events = call("/generate_stream", {"inputs": PROMPT, "parameters": parameters}).events
    plain = "".join(e["token"]["text"] for e in events if not e["token"]["special"])
    assert plain == events[-1]["generated_text"]
    whole = call("/generate", {"inputs": PROMPT, "parameters": parameters}).json
    assert plain == whole["generated_text"]
    assert plain.split() == words[: num_words or None]


def test_model_may_be_named_in_the_body_or_a_header(call: Call) -> None:
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 1}}
    assert call("/generate", {**body, "model": "small"}).status == 200
    assert call("/generate", body, model="small").status == 200
    for reply in (call("/generate", {**body, "model": "no"}), call("/generate", body, model="no")):
        assert (reply.status, reply.json["error_type"]) == (422, "validation")
        assert "`no`" in reply.json["error"]


def test_client_that_leaves_ends_its_output(call: Call, server: RunningServer) -> None:
    aborted = 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="small"} '

    def num_aborted() -> int:
        (line,) = (row for row in server.metrics().splitlines() if row.startswith(aborted))
        return int(line.removeprefix(aborted))

    before = num_aborted()
    connection = http.client.HTTPConnection(server.http, timeout=patience())
    body = '{"inputs": "Once", "parameters": {"max_new_tokens": 8000}}'
    connection.request("POST", "/generate_stream", body)
    connection.getresponse().read(10)
    connection.close()
    server.wait_until(lambda: num_aborted() == before + 1, "told as aborted")
    idle = 'vllm:num_requests_running{engine="0",model_name="small"} 0\n'
    server.wait_until(lambda: idle in server.metrics(), "free again")
