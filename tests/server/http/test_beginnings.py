"""What prompts have in common that begin alike."""

from typing import Any

import aiohttp
import pytest
from http_site import FakeCore
from scripted_model import ScriptedModel, served

from trivet.backends.api import Client, Generator
from trivet.server.http.beginnings import MOST_OF_PROMPT, of_messages, of_prompt

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Hello"}
BLOCKS = {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url"}]}
ANSWER = {"role": "assistant", "content": "Hi", "tool_calls": []}


def test_a_conversation_that_goes_on_begins_as_ever() -> None:
    begun = of_messages([SYSTEM, FIRST])

    assert of_messages([SYSTEM, FIRST, ANSWER, FIRST]) == begun
    assert of_messages([SYSTEM, BLOCKS]) == begun
    assert of_messages([SYSTEM, {"role": "user", "content": "Hell"}]) != begun
    assert of_messages([FIRST]) != begun


@pytest.mark.parametrize("content", [None, 3, [3, {"text": 3}], {"text": "x"}, "\ud800"])
def test_what_is_no_text_is_passed_over(content: Any) -> None:
    assert of_messages([{"role": "user", "content": content}]).isascii()


@pytest.mark.parametrize("one", ["x", [7], "\ud800"])
def test_prompts(one: Any) -> None:
    long = one * MOST_OF_PROMPT

    assert of_prompt(long) == of_prompt(long + one) == of_prompt([long, one])
    assert of_prompt(long) != of_prompt(long[1:])


TURN = [{"role": "user", "content": "Hello"}]
LATER = [*TURN, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
LONG = "Hello " * MOST_OF_PROMPT
BODIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": ({"messages": TURN}, {"messages": LATER}),
    "/v1/messages": ({"messages": TURN, "max_tokens": 5}, {"messages": LATER, "max_tokens": 5}),
    "/v1/responses": ({"input": "Hello"}, {"input": LATER}),
    "/v1/completions": ({"prompt": LONG}, {"prompt": LONG + "Bye"}),
    "/generate": ({"inputs": LONG}, {"inputs": LONG + "Bye"}),
}


@pytest.mark.parametrize("path", BODIES)
async def test_versions_are_chosen_by_it_in_each_api(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def generator(
        core: FakeCore, name: str, _version: object, _key: object, asker: Client
    ) -> tuple[Generator, dict[str, str]]:
        seen.append(asker.given("prefix"))
        return core.models[name], {}

    monkeypatch.setattr(FakeCore, "generator", generator)
    async with served({"m": ScriptedModel()}) as url, aiohttp.ClientSession() as session:
        for body in BODIES[path]:
            asked = {"model": "m", **body}
            async with session.post(url + path, json=asked) as reply:
                assert reply.status == 200, await reply.text()

    first, second = seen
    assert first == second
    assert "Hello" in str(first)
