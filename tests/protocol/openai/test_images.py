"""Images in chat by the openai client, over a server whose model reads them."""

import base64
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from image_folders import encoded, picture
from llm_site import Call, caller, write_tiny_llm
from row_marks import shows
from serving import RunningServer, start_server
from vision_folders import Reference, make_vision_model

NUM_NEW = 6
BLUE, RED = encoded(picture(70, 40, seed=1)), encoded(picture(40, 30, seed=4), "JPEG")
CONFIG = """
backend: "llm"
parameters { key: "kv_cache_bytes" value { string_value: "16777216" } }
parameters { key: "dtype" value { string_value: "float32" } }
parameters { key: "num_threads" value { string_value: "1" } }
"""
LIMITS = """
parameters { key: "limit_mm_per_prompt" value { string_value: "{\\"image\\": 2}" } }
parameters { key: "max_image_bytes" value { string_value: "20000" } }
parameters { key: "max_pixels" value { string_value: "10000" } }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("repository")
    make_vision_model(repository / "smolvlm" / "1")
    (repository / "smolvlm" / "config.pbtxt").write_text(CONFIG + LIMITS)
    write_tiny_llm(repository, "text", CONFIG)
    server = start_server(repository)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def call(server: RunningServer) -> Call:
    return caller(server)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    url = f"http://{server.http}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(make_vision_model(tmp_path_factory.mktemp("reference")))


def address(file: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def image(file: bytes | str) -> dict[str, Any]:
    url = file if isinstance(file, str) else address(file)
    return {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


TURNS: list[Any] = [
    {"role": "user", "content": [image(BLUE), text("What is <image> this?")]},
    {"role": "assistant", "content": "A wave."},
    {"role": "user", "content": [text("And "), image(RED), text("?")]},
]
SHOWN = [
    {"role": "user", "content": [{"type": "image"}, text("What is this?")]},
    {"role": "assistant", "content": [text("A wave.")]},
    {"role": "user", "content": [text("And "), {"type": "image"}, text("?")]},
]


def ask(client: openai.OpenAI, messages: list[Any], **more: Any) -> Any:
    return client.chat.completions.create(
        model="smolvlm", messages=messages, temperature=0, max_tokens=NUM_NEW,
        extra_body={"return_token_ids": True, "ignore_eos": True}, **more,
    )  # fmt: skip


def test_several_images_over_turns_are_answered_as_transformers_does(
    client: openai.OpenAI, reference: Reference
) -> None:
    messages = [{**TURNS[0], "content": [image(BLUE), text("What is this?")]}, *TURNS[1:]]
    prompt, tokens, logprobs = reference.generate(SHOWN, [BLUE, RED], NUM_NEW)

    answer = ask(client, messages, logprobs=True)

    choice = answer.choices[0]
    assert answer.prompt_token_ids == prompt
    assert answer.usage.prompt_tokens == len(prompt)
    assert choice.token_ids == tokens
    assert [each.logprob for each in choice.logprobs.content] == pytest.approx(logprobs, abs=1e-3)


def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI) -> None:
    whole = ask(client, TURNS)

    chunks = list(ask(client, TURNS, stream=True, stream_options={"include_usage": True}))

    written = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert written == whole.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_the_next_turn_finds_its_image_in_the_cache_and_another_does_not(
    client: openai.OpenAI,
) -> None:
    def first(file: bytes) -> list[Any]:
        return [{"role": "user", "content": [image(file), text("How many waves are there?")]}]

    def num_cached(messages: list[Any]) -> int:
        found: int = ask(client, messages).usage.prompt_tokens_details.cached_tokens
        return found

    mine = encoded(picture(50, 50, seed=11))
    num_cached(first(mine))
    assert num_cached([*first(mine), TURNS[1], {"role": "user", "content": "More?"}]) > 30
    assert num_cached(first(encoded(picture(50, 50, seed=12)))) < 30


def test_choices_of_one_prompt_share_its_image(client: openai.OpenAI) -> None:
    answer = ask(client, TURNS, n=3)

    assert len({tuple(choice.token_ids) for choice in answer.choices}) == 1


def test_tokens_of_images_are_counted_without_an_answer(call: Call, client: openai.OpenAI) -> None:
    counted = call("/tokenize", {"model": "smolvlm", "messages": TURNS})

    assert counted.json["count"] == ask(client, TURNS).usage.prompt_tokens
    # Marks of the client's are text: <image> is in the first message.
    assert counted.json["count"] > 2 * 20 + len("What is <image> this?")


NOISE = encoded(picture(60, 60, seed=3))


@pytest.mark.parametrize(
    ("content", "param", "told"),
    [
        shows("O26b", [image("data:image/png;base64,!!!")], "messages[0].content[0]", "is none"),
        shows("O26b", [image(NOISE), image(b"text")], "messages[0].content[1]", "no image file"),
        shows("O26b", [image(NOISE[:700])], "messages[0].content[0]", "cannot be decoded"),
        shows("O26b", [image(bytes(20_001))], "messages[0].content[0]", "max_image_bytes"),
        shows("O26b", [image(encoded(picture(120, 100)))], "messages[0].content[0]", "max_pixels"),
        shows("O26b", [image(BLUE)] * 3, "messages", "limit_mm_per_prompt"),
        shows("O25", [image("https://example.org/a.png")],
              "messages[0].content[0].image_url.url", "nothing is fetched"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_its_place(
    call: Call, content: list[Any], param: str, told: str
) -> None:
    for more in ({}, {"stream": True}):
        body = {"model": "smolvlm", "messages": [{"role": "user", "content": content}], **more}
        answer = call("/v1/chat/completions", body)

        error = answer.json["error"]
        assert (answer.status, error["param"]) == (400, param)
        assert told in error["message"]


@pytest.mark.rows("O26a")
def test_a_model_of_texts_says_that_it_reads_no_images(call: Call) -> None:
    for path in ("/v1/chat/completions", "/tokenize"):
        answer = call(path, {"model": "text", "messages": TURNS})

        error = answer.json["error"]
        assert (answer.status, error["param"]) == (400, "messages[0].content[0]")
        assert "model 'text' reads no images" in error["message"]


def test_the_other_apis_of_chats_read_the_same_images(call: Call, client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": [image(BLUE), text("What?")]}]
    said = ask(client, asked)
    counted = said.usage.prompt_tokens
    limit = {"model": "smolvlm", "temperature": 0, "ignore_eos": True}

    source = {"type": "base64", "media_type": "image/png", "data": address(BLUE).split(",")[1]}
    blocks = [{"type": "image", "source": source}, text("What?")]
    message = call(
        "/v1/messages",
        {**limit, "max_tokens": NUM_NEW, "messages": [{"role": "user", "content": blocks}]},
    ).json
    parts = [
        {"type": "input_image", "image_url": address(BLUE)},
        {"type": "input_text", "text": "What?"},
    ]
    response = call(
        "/v1/responses",
        {**limit, "max_output_tokens": NUM_NEW, "input": [{"role": "user", "content": parts}]},
    ).json

    usage = message["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted
    assert response["usage"]["input_tokens"] == counted
    assert message["content"][0]["text"] == said.choices[0].message.content


def test_images_are_not_cut_away(call: Call) -> None:
    body = {"model": "smolvlm", "messages": TURNS, "truncate_prompt_tokens": 9}

    answer = call("/v1/chat/completions", body)

    assert (answer.status, answer.json["error"]["param"]) == (400, "truncate_prompt_tokens")


def test_prompts_without_messages_take_texts_alone(call: Call) -> None:
    written = f"What is ![]({address(BLUE)})?"
    answer = call("/v1/completions", {"model": "smolvlm", "prompt": written})
    assert answer.status == 400
    assert "images are taken by /v1/chat/completions" in answer.json["error"]["message"]

    tensors = {"text_input": "What?", "image": "AAAA", "sampling_parameters": "{}"}
    assert call("/v2/models/smolvlm/generate", tensors).status == 400

    said = call("/v1/completions", {"model": "smolvlm", "prompt": "What?", "max_tokens": 2})
    assert said.status == 200
