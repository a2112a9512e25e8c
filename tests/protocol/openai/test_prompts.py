"""A prompt that is dropped beside a language model is a model of every protocol."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import anthropic
import numpy as np
import openai
import pytest
import tritonclient.http
from llm_site import Call
from prompt_folders import DESK, write_prompt
from serving import RunningServer

from trivet.server.models.validate import validate

ANSWER = 'response_schema = {type = "object", properties = {desk = {enum = ["a", "b"]}}, '
ANSWER += 'required = ["desk"], additionalProperties = false}\n'
LETTER = "Where is my parcel?"


@pytest.fixture(scope="module")
def repository(language_server: RunningServer) -> Path:
    arguments = language_server.process.args
    assert isinstance(arguments, list)
    return Path(str(arguments[4]))


@pytest.fixture(scope="module")
def desk(language_server: RunningServer, repository: Path) -> Iterator[str]:
    """Two versions of a prompt, the newest of which answers in JSON."""
    made = repository.parent / "made-desk"
    write_prompt(made, "desk", DESK, base="small")
    write_prompt(made, "desk", ANSWER + DESK.replace("= 6", "= 30"), 2, base="small")
    (made / "desk" / "config.pbtxt").write_text("version_policy { all {} }")
    (made / "desk").rename(repository / "desk")

    def is_ready(version: str) -> bool:
        return language_server.index().get(("desk", version), {}).get("state") == "READY"

    language_server.wait_until(lambda: is_ready("1") and is_ready("2"), "served")
    yield "desk"
    shutil.rmtree(repository / "desk")
    language_server.wait_until(lambda: ("desk", "1") not in language_server.index(), "gone")


def test_chats_are_answered_as_the_prompt_says(client: openai.OpenAI, desk: str) -> None:
    answer = client.chat.completions.create(
        model=desk,
        messages=[{"role": "user", "content": LETTER}],
        extra_body={"chat_template_kwargs": {"company": "ACME"}},
    )

    assert set(json.loads(answer.choices[0].message.content or "")) == {"desk"}


def test_the_prompt_is_what_the_base_would_have_been_asked(
    client: openai.OpenAI, call: Call, desk: str
) -> None:
    body = {"model": desk, "messages": [{"role": "user", "content": LETTER}]}
    ours = call("/v1/chat/completions", body, **{"x-model-version": "1"}).json
    user = f"Which desk gets this letter?\n{LETTER}"
    system = "You sort letters of Example Ltd."
    theirs = client.chat.completions.create(
        model="small",
        messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
        temperature=0,
        max_tokens=6,
    )

    assert ours["choices"][0]["message"]["content"] == theirs.choices[0].message.content
    assert theirs.usage is not None
    assert ours["usage"]["prompt_tokens"] == theirs.usage.prompt_tokens
    plain = call("/v1/completions", {"model": desk, "prompt": LETTER, "max_tokens": 6}).json
    assert plain["usage"]["prompt_tokens"] == theirs.usage.prompt_tokens


def test_responses_and_messages_are_answered(
    client: openai.OpenAI, server: RunningServer, desk: str
) -> None:
    response = client.responses.create(model=desk, input=LETTER)
    with anthropic.Anthropic(base_url=f"http://{server.http}", api_key="none") as other:
        message = other.messages.create(
            model=desk, max_tokens=30, messages=[{"role": "user", "content": LETTER}]
        )

    assert set(json.loads(response.output_text)) == {"desk"}
    assert message.content[0].type == "text"
    assert set(json.loads(message.content[0].text)) == {"desk"}


def test_tensors_are_answered(call: Call, server: RunningServer, desk: str) -> None:
    body = {"text_input": LETTER, "company": "ACME", "exclude_input_in_output": True}
    generated = call(f"/v2/models/{desk}/generate", body).json
    with tritonclient.http.InferenceServerClient(server.http) as other:
        config = other.get_model_config(desk)

    assert set(json.loads(generated["text_output"])) == {"desk"}
    assert {"name": "company", "optional": True} in [
        {key: each.get(key) for key in ("name", "optional")} for each in config["input"]
    ]


def test_tools_come_with_the_prompt(
    client: openai.OpenAI, repository: Path, language_server: RunningServer
) -> None:
    parameters = {"type": "object", "properties": {"desk": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "ask", "parameters": parameters}}
    made = write_prompt(
        repository.parent / "made", "caller", 'tools = "tools.json"\n' + DESK, base="small"
    )
    (made / "tools.json").write_text(json.dumps([tool]))
    made.parent.rename(repository / "caller")
    place, shown = ("caller", "1"), language_server.index
    language_server.wait_until(lambda: shown().get(place, {}).get("state") == "READY", "served")
    messages = [{"role": "user", "content": LETTER}]
    ours = client.chat.completions.create(model="caller", messages=messages)  # type: ignore[arg-type]
    user = f"Which desk gets this letter?\n{LETTER}"
    theirs = client.chat.completions.create(
        model="small",
        messages=[
            {"role": "system", "content": "You sort letters of Example Ltd."},
            {"role": "user", "content": user},
        ],
        tools=[tool],  # type: ignore[list-item]
        max_tokens=6,
    )
    shutil.rmtree(repository / "caller")

    assert ours.usage is not None
    assert theirs.usage is not None
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens


@pytest.mark.parametrize("base", ["nobody", "identity"])
def test_a_base_that_is_none_is_refused_alike(
    base: str, repository: Path, language_server: RunningServer
) -> None:
    write_prompt(repository, "lost", base=base)
    place = ("lost", "1")
    shown = language_server.index
    language_server.wait_until(
        lambda: shown().get(place, {}).get("state") == "UNAVAILABLE", "refused"
    )
    reason = shown()[place]["reason"]
    (found,) = [each for each in validate([repository]) if each.path.startswith("lost")]
    shutil.rmtree(repository / "lost")
    language_server.wait_until(lambda: place not in shown(), "gone")

    assert reason == found.message
    told = "does not serve: " if base == "nobody" else "does not generate text; it takes INPUT0"
    assert f"prompt.toml: its base '{base}' {told}" in reason


def test_many_at_once_share_the_base(client: openai.OpenAI, call: Call, desk: str) -> None:
    values = np.arange(4)
    bodies = [{"model": desk, "prompt": f"Letter {n}", "max_tokens": 2} for n in values]
    replies = [call("/v1/completions", body).status for body in bodies]

    assert replies == [200] * 4
    models = {each.id: each.model_dump() for each in client.models.list()}
    assert models[desk]["parent"] == "small"
