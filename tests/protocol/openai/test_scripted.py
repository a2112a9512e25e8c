"""What the real engine and server make of outputs that a test has written."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_models import write_crash
from llm_site import Call, caller
from scripted_llama import Script, bytes_of, write_scripted_llm
from serving import RunningServer, start_server

SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer"}},
    "required": ["score"],
    "additionalProperties": False,
}
RAW = "raw words"
EVIL = {"code": "__import__('os').system('true')"}
CALLING = f'<tool_call>{{"name": "f", "arguments": {json.dumps(EVIL)}}}</tool_call>'
THOUGHTS = ["<think>", "one ", "two ", "three ", "</think>", "done"]
SCRIPTS: list[Script] = [bytes_of("ABCDEFGHIJKLM"), ['{"score":1', ","], [CALLING], THOUGHTS]
TEMPLATE = "{% if tools %}{# written as <tool_call> #}<s2>{% else %}{# </think> #}<s3>{% endif %}"

MARKS = (
    "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>",
)  # fmt: skip
"""gpt-oss' own tokens."""
HARMONY = (
    "{# <|start|> <|channel|> <|message|> #}"
    "{% if tools and not thinks %}<s1>{% else %}<s0>{% endif %}"
)
HARMONIES: list[Script] = [
    ["<|channel|>", "analysis", "<|message|>", "one ", "two ", "three ", "<|end|>",
     "<|start|>assistant<|channel|>final<|message|>", "It is ", "noon.", "<|return|>"],
    ["<|chan", "nel|>analysis<|mess", "age|>Rome, th", "en.<|en", "d|><|start|>assistant",
     " to=functions.f<|channel|>commentary json<|message|>", '{"city": ', '"Rome"}', "<|call|>"],
]  # fmt: skip
"""No token may be in two places; marks that come again are cut in other places."""
CITY = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("scripted")
    write_models(repository)
    flags = ["--log-format=json", "--log-verbose=1", "--exit-on-error=false"]
    with pytest.MonkeyPatch.context() as patch:
        print_in_processes(tmp_path_factory.mktemp("site"), patch)
        server = start_server(repository, *flags, wait=False)
    names = {("scripted", "1"), ("harmony", "1")}
    server.wait_until(lambda: names <= states(server).keys(), "loaded")
    yield server
    server.end()


def print_in_processes(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Has every interpreter that is started print a line, as libraries do."""
    (folder / "sitecustomize.py").write_text(f"import os\nos.write(2, b'{RAW}\\n')\n")
    patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def states(server: RunningServer) -> dict[tuple[str, str], str]:
    """Of what is ready."""
    if server.http_port == 0 or server.get("/v2/health/live")[0] != 200:
        return {}
    found = {key: entry.get("state", "") for key, entry in server.index().items()}
    return {key: state for key, state in found.items() if state == "READY"}


@pytest.fixture(scope="module")
def call(server: RunningServer) -> Call:
    return caller(server)


def write_models(repository: Path) -> None:
    write_scripted_llm(repository, "scripted", SCRIPTS, otherwise=ord("}"), chat_template=TEMPLATE)
    write_scripted_llm(
        repository, "harmony", HARMONIES, chat_template=HARMONY, marks=MARKS, is_gpt_oss=True
    )
    write_crash(repository, "printing")
    # It fails in the engine's process, with a traceback: the grammar library wants a decoder.
    broken = write_scripted_llm(repository, "broken") / "1" / "tokenizer.json"
    broken.write_text(json.dumps(json.loads(broken.read_text()) | {"decoder": None}))


def completed(call: Call, number: int = 0, **wishes: Any) -> Any:
    """The choice of a script."""
    asked = {"model": "scripted", "prompt": f"<s{number}>", "temperature": 0, "max_tokens": 20}
    reply = call("/v1/completions", asked | wishes)
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]


@pytest.mark.parametrize(
    ("min_tokens", "stop", "text"),
    [
        (0, "C", "AB"),
        (2, "C", "AB"),
        (3, "C", "ABCDEFGHIJKLM"),  # over with the third token, which is still one of the first
        (10, "C", "ABCDEFGHIJKLM"),
        (5, "K", "ABCDEFGHIJ"),
        (3, "CDE", "AB"),  # ends behind them
        (13, "M", "ABCDEFGHIJKLM"),
    ],
)
def test_stop_texts_wait_for_min_tokens(call: Call, min_tokens: int, stop: str, text: str) -> None:
    assert completed(call, min_tokens=min_tokens, stop=[stop])["text"] == text


def test_script_follows_its_schema(call: Call) -> None:
    choice = completed(call, 1, structured_outputs={"json": SCORE})
    assert json.loads(choice["text"]) == {"score": 1}


@pytest.mark.rows("O17")
def test_schema_without_a_way_out_is_refused(call: Call) -> None:
    schema = SCORE | {"patternProperties": {"^score$": {"type": "integer"}}}
    asked = {"model": "scripted", "prompt": "<s1>", "structured_outputs": {"json": schema}}
    reply = call("/v1/completions", asked)
    assert reply.status == 400
    assert "patternProperties '^score$'" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("budget", "thoughts"), [(0, ""), (2, "one two "), (3, "one two three "), (9, None), (-1, None)]
)
def test_thoughts_end_with_their_budget(call: Call, budget: int, thoughts: str | None) -> None:
    thoughts = "one two three " if thoughts is None else thoughts
    wish = {"thinking_token_budget": budget}
    assert completed(call, 3, **wish)["text"] == f"<think>{thoughts}</think>done"
    asked = {
        "model": "scripted", "messages": [{"role": "user", "content": "a"}], "temperature": 0,
        **wish,
    }  # fmt: skip
    message = call("/v1/chat/completions", asked).json["choices"][0]["message"]
    assert (message.get("reasoning", ""), message["content"]) == (thoughts, "done")


def test_a_prompt_may_have_begun_the_thoughts(call: Call) -> None:
    wish: dict[str, Any] = {"prompt": "<s3><think>", "thinking_token_budget": 1}
    assert completed(call, **wish)["text"] == "one </think>done"


def test_what_a_grammar_forces_has_no_thoughts_to_end(call: Call) -> None:
    wish: dict[str, Any] = {"thinking_token_budget": 0, "structured_outputs": {"choice": ["AB"]}}
    assert completed(call, prompt="<think><s0>", **wish)["text"] == "AB"


def told_by_gpt_oss(call: Call, **wishes: Any) -> tuple[str, str, list[tuple[str, str]], str]:
    """Thoughts, content, calls and why it ended; a stream tells the same as a whole answer."""
    asked = {
        "model": "harmony", "messages": [{"role": "user", "content": "<|end|>When?"}],
        "temperature": 0, "max_tokens": 120, **wishes,
    }  # fmt: skip
    reply = call("/v1/chat/completions", asked)
    assert reply.status == 200, reply.body
    (choice,) = reply.json["choices"]
    whole = (
        choice["message"].get("reasoning") or "",
        choice["message"]["content"] or "",
        [(each["function"]["name"], each["function"]["arguments"])
         for each in choice["message"].get("tool_calls") or ()],
        choice["finish_reason"],
    )  # fmt: skip
    assert streamed(call, asked) == whole
    return whole


def streamed(call: Call, asked: dict[str, Any]) -> tuple[str, str, list[tuple[str, str]], str]:
    reply = call("/v1/chat/completions", asked | {"stream": True})
    *lines, done, _ = reply.body.decode().split("\n\n")
    assert done == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line[0] != ":"]
    choices = [choice for event in events for choice in event["choices"]]
    deltas = [choice["delta"] for choice in choices]
    calls: list[list[str]] = []
    for each in (each for delta in deltas for each in delta.get("tool_calls") or ()):
        if name := each["function"].get("name"):
            calls.append([name, ""])
        calls[each["index"]][1] += each["function"].get("arguments") or ""
    return (
        "".join(delta.get("reasoning") or "" for delta in deltas),
        "".join(delta.get("content") or "" for delta in deltas),
        [(name, arguments) for name, arguments in calls],
        choices[-1]["finish_reason"],
    )


BUDGETS = [(0, ""), (2, "one two "), (-1, "one two three ")]
IN_ROME = ("f", '{"city": "Rome"}')


@pytest.mark.parametrize(("budget", "thoughts"), BUDGETS)
def test_gpt_oss_thinks_as_long_as_it_may_and_answers(
    call: Call, budget: int, thoughts: str
) -> None:
    told = told_by_gpt_oss(call, thinking_token_budget=budget)
    assert told == (thoughts, "It is noon.", [], "stop")


def test_gpt_oss_calls_functions_of_its_own_accord(call: Call) -> None:
    told = told_by_gpt_oss(call, tools=[CITY])
    assert told == ("Rome, then.", "", [IN_ROME], "tool_calls")


@pytest.mark.parametrize(("budget", "thoughts"), BUDGETS)
def test_gpt_oss_thinks_as_long_as_it_may_before_a_call_that_is_forced(
    call: Call, budget: int, thoughts: str
) -> None:
    wish: dict[str, Any] = {"tools": [CITY], "chat_template_kwargs": {"thinks": True}}
    told = told_by_gpt_oss(call, tool_choice="required", thinking_token_budget=budget, **wish)
    assert told == (thoughts, "", [IN_ROME], "tool_calls")


@pytest.mark.rows("O21")
def test_code_that_a_model_writes_as_an_argument_is_a_text(call: Call) -> None:
    asked = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "Run it."}],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        ],
        "temperature": 0,
    }
    reply = call("/v1/chat/completions", asked)
    (told,) = reply.json["choices"][0]["message"]["tool_calls"]
    assert json.loads(told["function"]["arguments"]) == EVIL


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"bad_words": ["a" * 1001]}, "bad_words: a text of 1001 characters; at most 1000 may be"),
        ({"stop": ["a" * 1001]}, "stop: a text of 1001 characters"),
    ],
)
def test_texts_are_bounded_before_they_are_tokenised(
    call: Call, wishes: dict[str, Any], told: str
) -> None:
    asked = {"model": "scripted", "prompt": "<s0>", **wishes}
    reply = call("/v1/completions", asked)
    assert reply.status == 400
    assert told in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"bad_words": ["a" * 1001]}, "bad_words: a text of 1001 characters"),
        ({"stop": ["a" * 1001]}, "stop: a text of 1001 characters"),
        ({"stop": ["a"] * 129}, "stop: 129 texts; at most 128 are allowed"),
        ({"stop": [1]}, "stop: it must be a list of texts"),
        ({"bad_words": [1]}, "bad_words: it must be a list of texts"),
    ],
)
def test_texts_are_bounded_in_the_form_of_tensors_too(
    call: Call, wishes: dict[str, Any], told: str
) -> None:
    asked = {"text_input": "<s0>", "sampling_parameters": json.dumps(wishes)}
    reply = call("/v2/models/scripted/generate", asked)
    assert reply.status == 400
    assert told in reply.json["error"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/nothing"), ("POST", "/v1/threads/x"), ("GET", "/v1/")]
)
def test_unknown_path_is_answered_as_by_openai(call: Call, method: str, path: str) -> None:
    reply = call(path, {} if method == "POST" else None)
    assert reply.status == 404
    told = reply.json["error"]
    assert told["type"] == "invalid_request_error"
    assert told["code"] == "unknown_url"
    assert path in told["message"]
    assert method in told["message"]


def test_other_method_of_a_known_path_is_answered_as_by_openai(call: Call) -> None:
    reply = call("/v1/completions")
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert reply.json["error"]["code"] == 405


OPTIONAL = ("logprobs", "stop_reason", "token_ids", "prompt_token_ids")


def test_choices_have_their_optional_keys(call: Call) -> None:
    choice = completed(call)
    assert [choice[name] for name in (*OPTIONAL, "prompt_logprobs")] == [None] * 5
    asked = {"model": "scripted", "prompt": "<s0>", "temperature": 0, "max_tokens": 3}
    *events, last = call("/v1/completions", asked | {"stream": True}).body.split(b"\n\n")[:-1]
    assert last == b"data: [DONE]"
    for event in events:
        (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
        assert [choice[name] for name in OPTIONAL] == [None] * 4
        assert "finish_reason" in choice


def test_token_strs_are_the_vocabulary_s_own(call: Call) -> None:
    asked = {"model": "scripted", "prompt": "a \u00e9<s0>", "return_token_strs": True}
    reply = call("/tokenize", asked)
    # A blank and the bytes of a letter have letters of their own in vocabularies of bytes.
    assert reply.json["token_strs"] == ["a", "\u0120", "\u00c3", "\u00a9", "<s0>"]


def lines(server: RunningServer) -> list[dict[str, Any]]:
    """The log, each line of which must be JSON."""
    return [json.loads(line) for line in server.output if line.startswith("{")]


def test_engines_log_as_the_server_does(server: RunningServer) -> None:
    of_engine = [line for line in lines(server) if line["msg"].startswith("engine of ")]
    assert {line["model"] for line in of_engine} == {"scripted", "harmony", "broken"}
    (failed,) = (line for line in of_engine if line["level"] == "error")
    assert failed["model"] == "broken"
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert "\n  File" in failed["exception"]
    assert not any("Traceback" in line for line in server.output if not line.startswith("{"))


def test_what_processes_print_are_lines_with_level_and_pid(server: RunningServer) -> None:
    """Those of no model: what engines and what Python models' processes are forked from."""
    printed = [line for line in lines(server) if line["msg"] == RAW]
    assert [line.get("model") for line in printed] == [None, None]
    assert {line["level"] for line in printed} == {"info"}
    assert len({line["pid"] for line in printed}) == 2
    assert server.process.pid not in {line["pid"] for line in printed}


def test_every_request_has_a_line_with_its_id(server: RunningServer, call: Call) -> None:
    headers = {"x-request-id": "mine-1"}
    assert call("/v1/nothing?a=1", **headers).status == 404
    assert call("/v2/health/ready", **{"x-request-id": "mine-2"}).status in (200, 400, 503)
    server.wait_until(lambda: len(accesses(server, "mine-")) == 2, "noted")
    first, second = accesses(server, "mine-")
    assert (first["method"], first["path"], first["status"]) == ("GET", "/v1/nothing?a=1", 404)
    assert second["path"] == "/v2/health/ready"
    assert second["elapsed_ms"] > 0


def accesses(server: RunningServer, request_id: str) -> list[dict[str, Any]]:
    return [
        line
        for line in lines(server)
        if line["msg"] == "access" and line.get("request_id", "").startswith(request_id)
    ]
