"""Requests of adapters that are unloaded, evicted or left while they are computed or wait."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_models import BY_NAME, saved
from lora_adapters import greedy, write_adapter
from lora_engine import AdaptedEngine, open_adapted

from trivet.backends.api import Sampling
from trivet.backends.llm.messages import Abort, Message, Outputs, UnloadAdapter

PROMPT = [5, 9, 40, 3, 77, 8, 21]
SAMPLING = Sampling(max_tokens=8, temperature=0.0, ignore_eos=True)
NAMES = ("one", "two", "three")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("lora")
    values = BY_NAME["Llama"].values()
    base = BY_NAME["Llama"].model(values)
    merged = {name: write_adapter(base, folder / name, seed) for seed, name in enumerate(NAMES)}
    saved(base, values, folder / "base")
    told = {name: greedy(model, PROMPT, 8) for name, model in merged.items()}
    return folder, told


class Meddling(AdaptedEngine):
    """Something happens when the first token has come."""

    meddle: Callable[[], None] = staticmethod(lambda: None)

    def send(self, message: Message) -> None:
        super().send(message)
        if isinstance(message, Outputs) and any(message.each()):
            meddle, self.meddle = self.meddle, lambda: None
            meddle()


def opened(site: tuple[Path, dict[str, Any]], **given: Any) -> Meddling:
    folder = site[0]
    paths = {name: folder / name for name in NAMES}
    made = open_adapted(folder / "base", paths, Meddling(), **given)
    assert isinstance(made, Meddling)
    return made


def test_an_adapter_unloaded_while_it_computes_answers_to_the_end(
    site: tuple[Path, dict[str, Any]],
) -> None:
    engine = opened(site)
    engine.meddle = lambda: engine.engine.inbox.put(UnloadAdapter(engine.key("one")))
    (result,) = engine.ask([("one", PROMPT)], SAMPLING)
    assert result.tokens == site[1]["one"]
    (late,) = engine.ask([("one", PROMPT)], SAMPLING)
    assert "not loaded any more" in late.error


def test_unloading_fails_those_who_wait_for_its_slot_and_nobody_else(
    site: tuple[Path, dict[str, Any]],
) -> None:
    engine = opened(site, max_loras=1)
    engine.meddle = lambda: engine.engine.inbox.put(UnloadAdapter(engine.key("two")))
    one, two, three = engine.ask([(name, PROMPT) for name in NAMES], SAMPLING)
    assert "was unloaded while the request waited" in two.error
    assert (one.tokens, three.tokens) == (site[1]["one"], site[1]["three"])


def test_an_adapter_in_use_is_not_evicted(site: tuple[Path, dict[str, Any]]) -> None:
    engine = opened(site, max_loras=2)
    names = [*NAMES, *reversed(NAMES), *NAMES]
    results = engine.ask([(name, PROMPT) for name in names], SAMPLING)
    assert [result.tokens for result in results] == [site[1][name] for name in names]


def test_who_leaves_makes_room_for_those_who_wait(site: tuple[Path, dict[str, Any]]) -> None:
    engine = opened(site, max_loras=1)
    engine.meddle = lambda: engine.engine.inbox.put(Abort(["0"]))
    long = Sampling(max_tokens=60, temperature=0.0, ignore_eos=True)
    engine.forget("0")
    results = engine.ask([("one", PROMPT), ("two", PROMPT[:3])], long)
    assert len(results[1].tokens) == 60


def test_a_grammar_allows_no_token_that_another_requests_adapter_adds(tmp_path: Path) -> None:
    values = BY_NAME["Llama"].values()
    base = BY_NAME["Llama"].model(values)
    write_adapter(base, tmp_path / "more", 3, tokens=101)
    saved(base, values, tmp_path / "base")
    engine = open_adapted(tmp_path / "base", {"more": tmp_path / "more"})
    assert engine.read[engine.key("more")].vocabulary_size == 101
    wide = Sampling(max_tokens=20, temperature=5.0, ignore_eos=True)
    plain, more = engine.ask([("", PROMPT), ("more", PROMPT)], wide)
    assert max(plain.tokens) < 96
    assert len(more.tokens) == 20
