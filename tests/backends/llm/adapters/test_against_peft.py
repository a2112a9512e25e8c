"""Adapters give what the model gives that `peft` makes of base and adapter, whoever shares their
steps."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from family_models import BY_NAME, logits, saved
from lora_adapters import ALL_LINEAR, greedy, write_adapter
from lora_engine import AdaptedEngine, open_adapted

from trivet.backends.api import Sampling

VOCABULARY = 96
NUM_NEW = 6
SAMPLING = Sampling(
    max_tokens=NUM_NEW, temperature=0.0, ignore_eos=True, prompt_logprobs=0, logprobs=0
)
CHANCE = random.Random(5)
PROMPT = [CHANCE.randrange(VOCABULARY) for _ in range(37)]
"""Longer than a step."""
TOLERANCE = 2e-4
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "rank": {"r": 8, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "patterns": {
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "^.*up_proj": 6},
        "alpha_pattern": {"o_proj": 3, "v_proj": 32},
    },
    "tables": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "words": {"target_modules": ["q_proj"], "trainable_token_indices": [7, 3]},
    "more": {"target_modules": ["k_proj", "down_proj"], "tokens": 101},
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)


class Site:
    """A base, its adapters and what each of them is when it is merged; "" is the base."""

    def __init__(
        self, family: str, folder: Path, adapters: Mapping[str, Mapping[str, Any]]
    ) -> None:
        values = BY_NAME[family].values()
        base = BY_NAME[family].model(values)
        self.folder = saved(base, values, folder / "base")
        self.merged: dict[str, Any] = {"": base}
        for seed, (name, given) in enumerate(adapters.items()):
            self.merged[name] = write_adapter(base, folder / name, seed, **given)
        self.adapters = {name: folder / name for name in adapters}

    def open(self, **settings: Any) -> AdaptedEngine:
        return open_adapted(self.folder, self.adapters, **settings)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site("Llama", tmp_path_factory.mktemp("lora"), ADAPTERS)


def check(site: Site, engine: AdaptedEngine, names: Sequence[str]) -> None:
    """One request of each, in the same steps."""
    results = engine.ask([(name, PROMPT) for name in names], SAMPLING)
    for name, result in zip(names, results, strict=True):
        assert not result.error
        assert result.tokens == greedy(site.merged[name], PROMPT, NUM_NEW), name
        assert result.prompt_logprobs is not None
        chances = logits(site.merged[name], [PROMPT])[0].log_softmax(dim=-1)[:-1]
        wanted = chances.gather(1, torch.tensor([PROMPT]).t()[1:]).flatten()
        ours = torch.tensor([each[1] for each in result.prompt_logprobs])
        torch.testing.assert_close(ours, wanted, atol=TOLERANCE, rtol=0)


def test_adapters_change_what_the_base_says(site: Site) -> None:
    told = {name: tuple(greedy(model, PROMPT, NUM_NEW)) for name, model in site.merged.items()}
    assert len(set(told.values())) > len(told) // 2


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_all_in_one_batch_with_the_base_equal_their_merged_models(
    site: Site, prefix_caching: bool
) -> None:
    engine = site.open(prefix_caching=prefix_caching)
    check(site, engine, ["", *ADAPTERS, "", *ADAPTERS])
    check(site, engine, [*reversed(ADAPTERS), ""])  # with whatever is cached by now


def test_each_alone_equals_its_merged_model(site: Site) -> None:
    engine = site.open()
    for name in ("", *ADAPTERS, ""):
        check(site, engine, [name])


def test_no_prefix_is_shared_between_adapters_or_with_the_base(site: Site) -> None:
    engine = site.open(prefix_caching=True)
    plain = Sampling(max_tokens=2, temperature=0.0, ignore_eos=True)
    for name in ("", *ADAPTERS):
        (first,) = engine.ask([(name, PROMPT)], plain)
        (again,) = engine.ask([(name, PROMPT)], plain)
        assert (first.num_cached, again.num_cached) == (0, 36), name


def test_a_salt_of_a_client_opens_no_other_prefix(site: Site) -> None:
    engine = site.open(prefix_caching=True)
    plain = Sampling(max_tokens=2, temperature=0.0, ignore_eos=True)
    engine.ask([("all", PROMPT)], plain)
    (result,) = engine.ask([("", PROMPT)], plain, salt=engine.key("all"))
    assert result.num_cached == 0
    (result,) = engine.ask([("", PROMPT)], plain, salt=f"{engine.key('all')}\0")
    assert result.num_cached == 0


def test_more_adapters_than_slots_take_turns(site: Site) -> None:
    engine = site.open(max_loras=2)
    check(site, engine, [*ADAPTERS, "", *reversed(ADAPTERS)])


@pytest.mark.parametrize("family", ["Qwen2", "Gemma2", "Phi3", "GPT2", "GPTNeoX"])
def test_other_families_equal_their_merged_models(family: str, tmp_path: Path) -> None:
    modules = {
        "Phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
        "GPT2": ["c_attn", "c_fc"],
        "GPTNeoX": ["query_key_value", "dense_4h_to_h"],
    }.get(family, ALL_LINEAR)
    given = {"target_modules": list(modules), "fan_in_fan_out": family == "GPT2"}
    site = Site(family, tmp_path, {"one": given, "two": given | {"r": 3}})
    check(site, site.open(), ["one", "", "two", "one"])


def test_a_tied_head_follows_tokens_that_an_adapter_trains(tmp_path: Path) -> None:
    given = {"target_modules": ["q_proj"], "trainable_token_indices": [7, 3, 50]}
    site = Site("Gemma2", tmp_path, {"words": given})
    check(site, site.open(), ["words", ""])
