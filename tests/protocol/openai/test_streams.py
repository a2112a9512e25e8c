"""Event streams byte for byte: frames, order, ends; half characters and stop texts never leak."""

import http.client
import json
from typing import Any

import pytest
from llm_site import Call
from patience import patience
from serving import RunningServer

CHAT: dict[str, Any] = {
    "model": "small",
    "messages": [{"role": "user", "content": "Say something."}],
    "max_tokens": 6,
    "temperature": 0,
    "stream": True,
}
TEXT: dict[str, Any] = {
    "model": "small",
    "prompt": "The capital of France is",
    "max_tokens": 6,
    "temperature": 0,
    "stream": True,
}
EMOJI = "\U0001f9d1\u200d\U0001f680 \u00fc\u4e09\u811a\u67b6"


def frames(server: RunningServer, path: str, body: dict[str, Any]) -> list[bytes]:
    """The events' data, after a look at each frame."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=patience())
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        found = answer.read().split(b"\n\n")
    finally:
        connection.close()
    assert found.pop() == b""
    # Where the machine is slow.
    found = [frame for frame in found if frame != b": keep-alive"]
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in found)
    return [frame.removeprefix(b"data: ") for frame in found]


def chunks(server: RunningServer, path: str, body: dict[str, Any]) -> list[Any]:
    *found, done = frames(server, path, body)
    assert done == b"[DONE]"
    return [json.loads(each) for each in found]


def test_chat_begins_with_the_role_and_ends_with_a_reason(server: RunningServer) -> None:
    first, *rest = chunks(server, "/v1/chat/completions", CHAT)
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert first["object"] == "chat.completion.chunk"
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in rest)
    assert [chunk["choices"][0]["finish_reason"] for chunk in rest][-2:] == [None, "length"]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in rest}) == 1


def test_usage_comes_once_after_all_choices_and_only_on_demand(server: RunningServer) -> None:
    plain = chunks(server, "/v1/chat/completions", CHAT)
    assert all(chunk.get("usage") is None for chunk in plain)
    counted = chunks(
        server, "/v1/chat/completions", {**CHAT, "n": 2, "stream_options": {"include_usage": True}}
    )
    *others, last = counted
    assert all(chunk["choices"] and chunk.get("usage") is None for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12


def test_each_choice_begins_and_ends_once(server: RunningServer) -> None:
    found = chunks(server, "/v1/chat/completions", {**CHAT, "n": 3, "temperature": 1, "seed": 1})
    for index in range(3):
        mine = [c["choices"][0] for c in found if c["choices"][0]["index"] == index]
        assert ["role" in choice["delta"] for choice in mine] == [True] + [False] * (len(mine) - 1)
        ends = [choice["finish_reason"] for choice in mine]
        assert ends[-1] in ("length", "stop")
        assert set(ends[:-1]) == {None}


def test_characters_of_several_tokens_come_whole(server: RunningServer, call: Call) -> None:
    forced = {"structured_outputs": {"choice": [EMOJI]}, "max_tokens": 60}
    pieces = [
        chunk["choices"][0]["text"] for chunk in chunks(server, "/v1/completions", TEXT | forced)
    ]
    assert "".join(pieces) == EMOJI
    assert "\ufffd" not in "".join(pieces)
    num_tokens = call("/tokenize", {"prompt": EMOJI}).json["count"]
    # Else no character was ever split, and the test says nothing.
    assert num_tokens > len(EMOJI)


def test_a_character_that_is_cut_off_is_shown_as_such_at_the_end_only(
    server: RunningServer,
) -> None:
    forced = {"structured_outputs": {"choice": [EMOJI]}, "max_tokens": 2}
    *pieces, last = (
        chunk["choices"][0]["text"] for chunk in chunks(server, "/v1/completions", TEXT | forced)
    )
    assert "\ufffd" not in "".join(pieces)
    assert last.rstrip("\ufffd") == ""


@pytest.mark.parametrize("stop", ["cd ef", "ef", "d", "b cd ef g"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_no_part_of_a_stop_text_leaks(server: RunningServer, path: str, stop: str) -> None:
    base = TEXT if path == "/v1/completions" else CHAT
    forced = {"structured_outputs": {"choice": ["ab cd ef gh"]}, "stop": [stop, "never"]}
    found = chunks(server, path, {**base, **forced, "max_tokens": 40})
    choices = [chunk["choices"][0] for chunk in found]
    text = "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)
    assert text == "ab cd ef gh".partition(stop)[0]
    assert (choices[-1]["finish_reason"], choices[-1]["stop_reason"]) == ("stop", stop)


def test_a_beginning_of_a_stop_text_that_goes_on_otherwise_is_shown(server: RunningServer) -> None:
    forced = {"structured_outputs": {"choice": ["ab cd ef gh"]}, "stop": ["ef gi", "cd f"]}
    found = chunks(server, "/v1/completions", {**TEXT, **forced, "max_tokens": 40})
    assert "".join(chunk["choices"][0]["text"] for chunk in found) == "ab cd ef gh"


def test_token_ids_of_the_pieces_are_the_output(server: RunningServer, call: Call) -> None:
    found = chunks(server, "/v1/completions", {**TEXT, "return_token_ids": True})
    ids = [token for chunk in found for token in chunk["choices"][0]["token_ids"]]
    text = "".join(chunk["choices"][0]["text"] for chunk in found)
    assert call("/detokenize", {"tokens": ids}).json == {"prompt": text}


def test_wrong_requests_have_a_status_not_a_stream(call: Call) -> None:
    reply = call("/v1/completions", {**TEXT, "prompt": [49_152]})
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    late = call("/v1/completions", {**TEXT, "structured_outputs": {"regex": "("}})
    assert (late.status, late.json["error"]["param"]) == (400, "structured_outputs")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_tokens_come_some_at_a_time_on_demand_and_the_first_at_once(
    server: RunningServer, path: str
) -> None:
    body = {**(CHAT if "chat" in path else TEXT), "return_token_ids": True, "ignore_eos": True}
    single = [each["choices"][0] for each in chunks(server, path, body)]
    merged = [each["choices"][0] for each in chunks(server, path, {**body, "stream_interval": 3})]
    sizes = [len(choice["token_ids"]) for choice in merged if choice.get("token_ids")]
    assert sizes == [1, 3, 2]
    assert told(merged) == told(single)


def told(choices: list[Any]) -> tuple[str, list[int]]:
    """The text and the tokens of a stream's choices."""
    text = "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)
    return text, [token for choice in choices for token in choice.get("token_ids", ())]


def test_the_prompts_tokens_come_once_with_the_first_event(
    server: RunningServer, call: Call
) -> None:
    first, *rest = chunks(server, "/v1/chat/completions", {**CHAT, "return_token_ids": True})
    ids = call("/tokenize", {"model": "small", "messages": CHAT["messages"]}).json["tokens"]
    assert first["prompt_token_ids"] == ids
    assert all("prompt_token_ids" not in each for each in rest)
    first, *rest = chunks(server, "/v1/completions", {**TEXT, "return_token_ids": True})
    ids = call("/tokenize", {"model": "small", "prompt": TEXT["prompt"]}).json["tokens"]
    assert first["choices"][0]["prompt_token_ids"] == ids
    assert all(each["choices"][0]["prompt_token_ids"] is None for each in rest)
