"""Adapters give what the model gives that `peft` makes of base and adapter, whoever shares their
steps."""

import copy
import random
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from family_models import BY_NAME, logits, saved
from lora_adapters import ALL_LINEAR, WEIGHTS, greedy, write_adapter
from lora_engine import AdaptedEngine, open_adapted
from paged_models import made_random
from rank_threads import Meeting, ThreadRank
from safetensors.torch import save_file

from trivet.backends.api import Sampling
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.adapters.reading import read_files
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.fp8 import Fp8, Fp8Product
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.ranks.processes import RankedRunner
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

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
        self,
        family: str,
        folder: Path,
        adapters: Mapping[str, Mapping[str, Any]],
        changes: dict[str, Any] | None = None,
    ) -> None:
        values = BY_NAME[family].values(changes or {})
        self._take(BY_NAME[family].model(values), values, folder)
        for seed, (name, given) in enumerate(adapters.items()):
            self.add(name, seed, **given)

    @classmethod
    def of(cls, base: Any, values: dict[str, Any], folder: Path) -> "Site":
        """Of any model."""
        made = cls.__new__(cls)
        made._take(base, values, folder)
        return made

    def _take(self, base: Any, values: dict[str, Any], folder: Path) -> None:
        self.folder = saved(base, values, folder / "base")
        self.merged: dict[str, Any] = {"": base}
        self.adapters: dict[str, Path] = {}

    def add(self, name: str, seed: int, **given: Any) -> None:
        """One more adapter."""
        folder = self.adapters[name] = self.folder.parent / name
        self.merged[name] = write_adapter(self.merged[""], folder, seed, **given)

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
    check(site, engine, [*reversed(list(ADAPTERS)), ""])  # with whatever is cached by now


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
    check(site, engine, [*ADAPTERS, "", *reversed(list(ADAPTERS))])


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


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
MIXTURES: Mapping[str, Sequence[str]] = {
    "Mixtral": ["q_proj"],
    "Qwen2Moe": ["q_proj"],
    "GptOss": ["o_proj"],
    "DeepseekV3": ["q_a_proj", "kv_a_proj_with_mqa", "q_b_proj", "o_proj"],
    "Olmoe": ["v_proj"],
}


@pytest.mark.parametrize("family", MIXTURES)
def test_mixtures_of_experts_equal_their_merged_models(family: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "target_modules": list(MIXTURES[family]), "target_parameters": EXPERTS,
    }  # fmt: skip
    others: dict[str, dict[str, Any]] = {
        "two": {**given, "r": 3, "alpha_pattern": {"experts.down_proj": 5}},
        "down": {"target_modules": ["q_proj"], "target_parameters": EXPERTS[1:]},
    }
    if family == "DeepseekV3":
        others["down"]["target_modules"] = ["o_proj"]
    site = Site(family, tmp_path, {"one": given, **others})
    check(site, site.open(), ["one", "", "two", "one", "down"])


def test_experts_one_by_one_are_what_peft_makes_of_them(tmp_path: Path) -> None:
    """As they were named before transformers had them as one tensor."""
    site = Site("Mixtral", tmp_path, {})
    chance, weights = torch.Generator().manual_seed(3), {}
    sizes = {"w1": (48, 32), "w2": (32, 48), "w3": (48, 32)}
    for layer, expert, (name, (outputs, inputs)) in product(range(2), range(5), sizes.items()):
        stem = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
        weights[f"{stem}.lora_A.weight"] = torch.randn(4, inputs, generator=chance) * 0.3
        weights[f"{stem}.lora_B.weight"] = torch.randn(outputs, 4, generator=chance) * 0.3
    folder = site.adapters["old"] = tmp_path / "old"
    folder.mkdir()
    save_file(weights, folder / WEIGHTS)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=sorted(sizes), task_type="CAUSAL_LM")
    config.save_pretrained(str(folder))
    base = copy.deepcopy(site.merged[""])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a pattern that it makes itself
        loaded = peft.PeftModel.from_pretrained(base, str(folder))
    site.merged["old"] = loaded.merge_and_unload().eval()
    check(site, site.open(), ["old", ""])


def test_the_expert_of_all_tokens_is_adapted(tmp_path: Path) -> None:
    """PEFT takes its matrices for those of the other experts, which are one tensor: merged here."""
    site = Site("DeepseekV3", tmp_path, {})
    chance, weights = torch.Generator().manual_seed(3), {}
    merged = site.merged["shared"] = copy.deepcopy(site.merged[""])
    for name, layer in merged.named_modules():
        if isinstance(layer, torch.nn.Linear) and "shared_experts" in name:
            outputs, inputs = layer.weight.shape
            down, up = (torch.randn(size, generator=chance) for size in ((4, inputs), (outputs, 4)))
            weights[f"base_model.model.{name}.lora_A.weight"] = down
            weights[f"base_model.model.{name}.lora_B.weight"] = up
            layer.weight.data += up @ down * 2
    folder = site.adapters["shared"] = tmp_path / "shared"
    folder.mkdir()
    save_file(weights, folder / WEIGHTS)
    peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM").save_pretrained(str(folder))
    check(site, site.open(), ["shared", ""])


def test_a_base_of_8_bit_matrices_adds_what_adapters_change(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96}
    site = Site("Llama", tmp_path, {"one": {}, "two": {"r": 8}}, sizes)
    base = dict(site.merged[""].named_modules())
    expected = {name: in_8_bits(model, base) for name, model in site.merged.items()}
    engine = site.open(quantization="fp8")
    results = engine.ask([(name, PROMPT) for name in ("one", "", "two")], SAMPLING)
    for name, result in zip(("one", "", "two"), results, strict=True):
        assert result.prompt_logprobs is not None
        chances = logits(expected[name], [PROMPT])[0].log_softmax(dim=-1)[:-1]
        wanted = chances.gather(1, torch.tensor([PROMPT]).t()[1:]).flatten()
        ours = torch.tensor([each[1] for each in result.prompt_logprobs])
        # Rows of 8 bits fall to one side or the other by the last bit of a float.
        assert (ours - wanted).abs().mean() < 0.02, name


def in_8_bits(merged: Any, base: Mapping[str, Any]) -> Any:
    """A merged model whose base is multiplied in 8 bits, and what was merged is not."""
    made = copy.deepcopy(merged)
    for name, layer in made.named_modules():
        if isinstance(layer, torch.nn.Linear) and "layers" in name:
            change = layer.weight.data - base[name].weight.data
            product = Fp8.of(Dense(base[name].weight.data)).product()
            layer.forward = partial(multiplied, product, change.t())  # type: ignore[method-assign]
    return made


def multiplied(product: Fp8Product, change: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = product(states[0]) + states[0] @ change
    return made.unsqueeze(0)


@pytest.mark.parametrize(
    ("family", "changes", "size", "given"),
    [
        ("Llama", {"attention_bias": True}, 2, {}),
        ("Qwen2", {"num_attention_heads": 8, "num_key_value_heads": 2}, 4, {}),
        ("Phi3", {}, 2, {"target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]}),
        ("Llama", {}, 2, {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("Llama", {}, 2, {"target_modules": ["k_proj"], "tokens": 101}),
        ("Mixtral", {}, 2, {"target_modules": ["k_proj"], "target_parameters": EXPERTS}),
    ],
)
def test_each_rank_adds_its_part(
    family: str, changes: dict[str, Any], size: int, given: dict[str, Any], tmp_path: Path
) -> None:
    site = Site(family, tmp_path, {"one": given}, changes)
    config, weights, _ = load_model(site.folder, torch.float32)
    prompt = torch.tensor(PROMPT)
    wanted = logits(site.merged["one"], [PROMPT])[0]

    def computed(rank: ThreadRank) -> torch.Tensor:
        bank = AdapterBank(torch.float32, torch.device("cpu"), 64)
        mine = Weights(weights, config, rank, adapters=bank)
        cache = KvCache(mine.config, 16, 4, torch.float32)
        model = TorchDecoder(mine, TorchAttention(cache, mine.config.attentions))
        bank.put(1, bank.read(read_files(site.adapters["one"])))
        places, count = torch.arange(len(PROMPT)), len(PROMPT)
        bank.begin(np.array([1]), np.array([0, count]), list(range(count)))
        blocks = torch.arange(1, 11, dtype=torch.int32)[None]
        starts, lengths = torch.tensor([0, count]).int(), torch.tensor([count]).int()
        with torch.no_grad():
            return model.forward(
                StepInputs(prompt, places, places + 4, starts, lengths, blocks, places)
            )

    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as threads:
        for found in threads.map(computed, [ThreadRank(rank, meeting) for rank in range(size)]):
            torch.testing.assert_close(found[:, : wanted.shape[1]], wanted, atol=1e-4, rtol=0)


FOREIGN: Mapping[str, Mapping[str, Any]] = {
    "Arcee": {"intermediate_size": 48},
    "Lfm2": {
        "intermediate_size": 48, "layer_types": ["conv", "full_attention"], "block_ff_dim": 48,
    },
}  # fmt: skip
"""One that is computed as one batch, and one whose sequences have states."""


@pytest.mark.parametrize("name", FOREIGN)
def test_models_of_transformers_own_classes_equal_their_merged_models(
    name: str, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**{**sizes, **FOREIGN[name]})
    config.architectures = [f"{name}ForCausalLM"]
    torch.manual_seed(7)
    base = made_random(getattr(transformers, f"{name}ForCausalLM")(config))
    linear = ["q_proj", "out_proj", "w1", "in_proj"] if name == "Lfm2" else ["v_proj", "up_proj"]
    site = Site.of(base, config.to_dict(), tmp_path)
    site.add("one", 0, target_modules=linear)
    site.add("two", 1, target_modules=linear[:2], r=8)
    tables = ["lm_head", "embed_tokens"]
    if name == "Arcee":
        site.add("tables", 2, modules_to_save=tables, target_modules=linear)
        site.add("more", 3, target_modules=linear, tokens=101)
    check(site, engine := site.open(), [*site.merged, "one"])
    check(site, engine, ["two"])
    if name == "Lfm2":
        write_adapter(base, tmp_path / "head", 2, modules_to_save=tables, target_modules=linear)
        error = engine.load("head", tmp_path / "head").error
        assert "that can be adapted" in error


@pytest.mark.slow
def test_two_ranks_in_processes_give_what_one_gives(site: Site) -> None:
    two = site.open(tensor_parallel_size=2, max_loras=2)
    try:
        check(site, two, [*ADAPTERS, "", *reversed(list(ADAPTERS))])
    finally:
        assert isinstance(two.engine._runner, RankedRunner)
        two.engine._runner._others.close()
        torch.distributed.destroy_process_group()
