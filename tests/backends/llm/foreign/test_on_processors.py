"""On a processor the compiled step's parts stand in for those of a model of transformers, which
then gives what it gave, and adapters change it as before."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from decoder_classes import written
from native_models import NATIVE
from tiny_decoders import decoder_of, random_model, tiny_config, tiny_model
from torch import Tensor

from trivet.backends.llm.adapters.adapter import Adapter, AdapterFiles, LowRank
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.foreign.checking import error_of
from trivet.backends.llm.foreign.mlps import find_mlps
from trivet.backends.llm.foreign.norms import replace_norms
from trivet.backends.llm.foreign.plan import ModelTensors
from trivet.backends.llm.foreign.planning import AS_ONE_BATCH, plan_model
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
IDS = [3 + (7 * place) % 89 for place in range(21)]
SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
NUM_PARTS = {
    "llama": (2, 5, 2, 2), "gemma": (2, 5, 2, 2), "qwen3": (2, 9, 0, 0),
    "stablelm": (2, 0, 2, 0), "phi": (0, 0, 2, 0), "cohere": (2, 0, 0, 0),
}  # fmt: skip
"""Of two layers: gated MLPs; norms of RMSNorm's kind; attentions that norm no heads and turn their
halves; and layers of all of them, in the order of Llama's."""


def made(model_type: str) -> Any:
    """A model in bfloat16 of sizes that the compiled step computes."""
    kind, config = decoder_of(tiny_config(model_type))
    for name, size in SIZES.items():
        if hasattr(config, name):
            setattr(config, name, size)
    return random_model(kind, config).bfloat16()


def made_somehow(model_type: str) -> Any:
    """The same, or of other sizes where a class has rules for them, which it may not tell."""
    try:
        model = made(model_type)
        logits_of(model)
        return model  # noqa: TRY300  # it computes
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return tiny_model(model_type).bfloat16()


def served(model: Any, bank: AdapterBank | None = None) -> Model:
    plan = plan_model(model, torch.bfloat16, 4)
    cache = KvCache(plan.config, 4, 16, torch.bfloat16)
    return make_model(Weights(ModelTensors(model, plan), plan.config, adapters=bank), cache)


def step(done: int, count: int) -> StepInputs:
    places = torch.arange(done, done + count)
    return StepInputs(
        token_ids=torch.tensor(IDS)[places],
        positions=places,
        slot_mapping=16 + places,
        query_starts=torch.tensor([0, count]).int(),
        sequence_lengths=torch.tensor([done + count]).int(),
        block_tables=torch.tensor([[1, 2]]).int(),
        sample_rows=torch.arange(count),
    )


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    """By transformers alone."""
    logits: Tensor = model(input_ids=torch.tensor(IDS)[None], use_cache=False).logits[0].float()
    return logits


def layers_of(model: Any) -> list[Any]:
    """A Llama's and its like's."""
    return list(model.model.layers)


def num_blocks(model: Any) -> int:
    """How many attentions are computed as a whole."""
    return sum("forward" in vars(each.self_attn) for each in layers_of(model))


@pytest.mark.parametrize("model_type", NUM_PARTS)
def test_parts_stand_in_where_they_give_the_same(model_type: str) -> None:
    model = made(model_type)
    wanted = logits_of(model)
    layers = [each for each in model.modules() if type(each) is torch.nn.Linear]
    num_mlps, num_norms, num_attentions, num_layers = NUM_PARTS[model_type]
    assert len(find_mlps(model, layers)) == num_mlps
    ours = served(model)
    assert len(replace_norms(model)) == num_norms  # again
    assert num_blocks(model) == num_attentions
    assert sum("forward" in vars(each) for each in layers_of(model)) == num_layers
    with torch.no_grad():
        found = torch.cat([ours.forward(step(0, 17)), ours.forward(step(17, 3))])
        found = torch.cat([found, ours.forward(step(20, 1))])
    assert not error_of(found, wanted, is_exact=False)
    assert found[0].std() > 0.05
    found.zero_()  # whoever samples may


@pytest.mark.parametrize("most", [3.0, 40.0])
def test_an_attention_is_its_own_where_large_keys_are_clipped(most: float) -> None:
    """Few states are so large."""
    model = made("llama")
    key = layers_of(model)[0].self_attn.k_proj
    key.register_forward_hook(lambda layer, given, found: found.clamp(-most, most))
    wanted, ours = logits_of(model), served(model)
    assert num_blocks(model) == 1
    with torch.no_grad():
        assert not error_of(ours.forward(step(0, 21)), wanted, is_exact=False)


class Clipped(torch.nn.Module):
    """SiLU of what is not large."""

    def forward(self, gates: Tensor) -> Tensor:
        return torch.nn.functional.silu(gates.clamp(max=7.0))


def test_an_mlp_is_its_own_where_large_gates_are_clipped() -> None:
    model = made("llama")
    layers_of(model)[1].mlp.act_fn = Clipped()
    layers = [each for each in model.modules() if type(each) is torch.nn.Linear]
    assert len(find_mlps(model, layers)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [
    model_type for model_type, outcome in written().items() if outcome.way == AS_ONE_BATCH
])  # fmt: skip
def test_whatever_stands_in_no_class_gives_anything_else(model_type: str) -> None:
    model = made_somehow(model_type)
    wanted, ours = logits_of(model), served(model)
    with torch.no_grad():
        found = torch.cat([ours.forward(step(0, 17)), ours.forward(step(17, 4))])
    assert not error_of(found, wanted, is_exact=False)


def test_a_norm_may_be_called_by_its_arguments_names() -> None:
    model, states = made("llama"), torch.ones(1, 3, SIZES["hidden_size"]).bfloat16()
    norm = model.model.norm
    assert replace_norms(model)
    assert torch.equal(norm(hidden_states=states), norm(states))


def test_no_token_of_a_step_need_give_logits() -> None:
    ours, inputs = served(made("llama")), step(0, 5)
    none = replace(inputs, sample_rows=torch.empty(0, dtype=torch.int64))
    with torch.no_grad():
        assert ours.forward(none).shape[0] == 0


def test_an_adapter_changes_layers_within_a_part() -> None:
    model = made("llama")
    plain, merged = logits_of(model), copy.deepcopy(model)
    bank = AdapterBank(torch.bfloat16, torch.device("cpu"), 8)
    ours = served(model, bank)
    chance, matrices = torch.Generator().manual_seed(1), {}
    for place in bank.places.all:
        layer = merged.get_submodule(place.parts[0].module)
        down = (torch.randn(4, place.inputs, generator=chance) * 0.3).bfloat16()
        up = (torch.randn(place.outputs, 4, generator=chance) * 0.3).bfloat16()
        layer.weight.data += up @ down
        matrices[place.index, 0] = LowRank(down, up)
    assert len(matrices) == 2 * len(("q", "k", "v", "o", "gate", "up", "down"))
    bank.put(1, Adapter(matrices, None, None, len(plain[0]), 4, AdapterFiles({}, b"")))
    wanted = logits_of(merged)
    assert error_of(plain, wanted, is_exact=False)
    with torch.no_grad():
        bank.begin(np.array([1]), np.array([0, 21]), list(range(21)))
        assert not error_of(ours.forward(step(0, 21)), wanted, is_exact=False)
        bank.begin(None, np.array([0, 21]), list(range(21)))
        assert not error_of(ours.forward(step(0, 21)), plain, is_exact=False)
