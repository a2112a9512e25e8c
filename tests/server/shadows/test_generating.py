"""Shadows of models that generate text."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from made_models import NoExecutor, made_model
from patience import patience
from scripted_model import ScriptedModel

from trivet.backends.api import ChatInput, Chunk, GenerateRequest, Sampling, ServingError, Signature
from trivet.server.models.registry import Registry
from trivet.server.models.traffic import parse_traffic
from trivet.server.rollouts.experiments import Experiments
from trivet.server.shadows.mirror import Verdict
from trivet.server.shadows.shadows import Shadows

TRAFFIC = "[split]\n1 = 100\n[shadow]\nversion = 2\nsimilarity = 0.8\n"
CHAT = ChatInput([{"role": "user", "content": "Where is it?"}])


class Speaks(ScriptedModel, NoExecutor):
    """A version of a model that says what it is told to."""

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]


class Site:
    """Version 1 answers, and version 2 is asked beside."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry()
        self.shadows = Shadows(self.registry, folder)
        self.registry.routers.watch_of = Experiments(self.shadows).watch_of
        self.primary, self.shadow = Speaks(), Speaks()
        self.shadow.prompt = "its own prompt"
        for version, executor in ((1, self.primary), (2, self.shadow)):
            model = made_model("m", Signature({}, {}, 0, False), executor, version=version)
            self.registry.publish(model)
        self.registry.share_out("m", parse_traffic(TRAFFIC))

    async def ask(self, *, as_chat: bool = True, is_cut: bool = False) -> str:
        """What a client gets."""
        admitted = self.registry.routers.resolve("m", None)
        assert admitted.watch is not None
        generator = admitted.watch.generator(self.primary)
        text = await (generator.render(CHAT) if as_chat else generator.compose("Once"))
        ids = await generator.encode(text, add_special_tokens=True)
        answer = Answer()
        generator.generate(GenerateRequest("r1", ids[-2:] if is_cut else ids, Sampling()), answer)
        async with asyncio.timeout(patience()):
            await answer.is_over.wait()
        return answer.text

    async def told(self) -> tuple[dict[Verdict, int], list[dict[str, Any]]]:
        """What became of the copies, once there is one."""
        async with asyncio.timeout(patience()):
            while not self.shadows.counts_of("m").get(2):
                await asyncio.sleep(0.001)
        counts = dict(self.shadows.counts_of("m")[2])
        return counts, [json.loads(line) for line in self.shadows.kept("m")]


class Answer:
    """Keeps what a client gets."""

    def __init__(self) -> None:
        self.text = ""
        self.is_over = asyncio.Event()

    def chunk(self, chunk: Chunk) -> None:
        self.text += chunk.text
        if chunk.finish is not None:
            self.is_over.set()

    def fail(self, error: ServingError) -> None:
        raise error


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    made.shadows.close()


async def test_texts_are_compared_by_how_much_of_them_is_the_same(site: Site) -> None:
    site.primary.pieces = ("It is ", "on its way")
    site.shadow.pieces = ("Nobody ", "knows that")
    assert await site.ask() == "It is on its way"
    counts, (difference,) = await site.told()

    assert counts == {Verdict.DIFFERENT: 1}
    assert difference["differences"][0].startswith("text_output: a text is ")
    assert difference["outputs"] == {"text_output": ["It is on its way"]}
    assert difference["shadow_outputs"] == {"text_output": ["Nobody knows that"]}
    assert "Where is it?" in difference["inputs"]["prompt"][0]


async def test_texts_that_are_nearly_alike_are_the_same(site: Site) -> None:
    site.primary.pieces, site.shadow.pieces = ("It is on its way.",), ("It is on its way!",)
    await site.ask()

    assert await site.told() == ({Verdict.SAME: 1}, [])


@pytest.mark.parametrize(
    ("as_chat", "is_cut", "asked"),
    [(True, False, "its own prompt"), (False, False, "Once"), (True, True, "pt")],
)
async def test_the_shadow_writes_the_prompt_itself_unless_it_was_cut(
    site: Site, *, as_chat: bool, is_cut: bool, asked: str
) -> None:
    await site.ask(as_chat=as_chat, is_cut=is_cut)
    await site.told()

    (request,) = site.shadow.requests
    assert "".join(map(chr, request.prompt_ids)) == asked
    assert request.priority > site.primary.requests[0].priority


async def test_a_shadow_that_breaks_frees_its_place(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> str:
        raise KeyError("a template's own fault")

    monkeypatch.setattr(site.shadow, "render", broken)
    await site.ask()
    async with asyncio.timeout(patience()):
        while not (await site.told())[1]:  # it is written down behind the count
            await asyncio.sleep(0.001)
    counts, (difference,) = await site.told()
    assert counts == {Verdict.FAILED: 1}
    assert "KeyError" in difference["differences"][0]
    assert "a shadow could not be asked" in caplog.text

    monkeypatch.undo()
    await site.ask()
    async with asyncio.timeout(patience()):
        while site.shadows.counts_of("m")[2][Verdict.SAME] < 1:
            await asyncio.sleep(0.001)
