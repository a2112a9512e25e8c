"""Whom a router chooses."""

from dataclasses import replace

import pytest
import torch
from family_models import BY_NAME
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.families.kinds import ExpertMlp, GatedMlp
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.models.mlps import Experts
from trivet.backends.llm.models.parts import ExpertWeights, MlpWeights

HIDDEN, INNER, EXPERTS, ACTIVE = 64, 32, 64, 6


def random(chance: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=chance).bfloat16()


def by_hand(states: Tensor, weights: ExpertWeights) -> Tensor:
    """All in float32."""
    states, outputs = states.float(), []
    for each in weights.experts:
        assert isinstance(each.inner, Dense)
        assert isinstance(each.down, Dense)
        gate, up = (states @ each.inner.data.float().T).chunk(2, dim=-1)
        outputs.append((functional.silu(gate) * up) @ each.down.data.float().T)
    assert isinstance(weights.router, Dense)
    shares, chosen = (states @ weights.router.data.float().T).softmax(dim=-1).topk(ACTIVE, dim=-1)
    of_chosen = torch.stack(outputs, dim=1).gather(1, chosen.unsqueeze(2).expand(-1, -1, HIDDEN))
    return (of_chosen * shares.unsqueeze(2)).sum(dim=1)


def test_a_router_in_float32_chooses_those_that_are_liked_best() -> None:
    """In bfloat16, many a token goes to others."""
    chance = torch.Generator().manual_seed(3)
    inner = [Dense(random(chance, 2 * INNER, HIDDEN)) for _ in range(EXPERTS)]
    down = [Dense(random(chance, HIDDEN, INNER)) for _ in range(EXPERTS)]
    experts = [MlpWeights(into, None, back, None) for into, back in zip(inner, down, strict=True)]
    router = Dense(random(chance, EXPERTS, HIDDEN) * 0.02)
    weights = ExpertWeights(router, None, None, experts, None, None)
    states = random(chance, 2000, HIDDEN)
    exact = ExpertMlp(EXPERTS, ACTIVE, GatedMlp(INNER), is_normalised=False, has_exact_router=True)
    wanted = by_hand(states, weights)

    def num_elsewhere(kind: ExpertMlp) -> int:
        errors = (Experts(kind, weights)(states).float() - wanted).norm(dim=1) / wanted.norm(dim=1)
        return int((errors > 0.05).sum())

    assert num_elsewhere(exact) == 0
    assert num_elsewhere(replace(exact, has_exact_router=False)) > 10


@pytest.mark.parametrize(
    ("name", "is_exact"),
    [("DeepseekV2", True), ("DeepseekV3", True), ("Glm4Moe", True), ("Qwen3Moe", False)],
)
def test_routers_compute_as_transformers_has_it(name: str, is_exact: bool) -> None:
    mlp = from_hub(BY_NAME[name].values()).layers[-1].mlp
    assert isinstance(mlp, ExpertMlp)
    assert mlp.has_exact_router is is_exact


@pytest.mark.parametrize("name", ["Mixtral", "Qwen3Moe"])
def test_shares_are_rounded_where_transformers_rounds_them(name: str) -> None:
    """To the bit, which a share that is rounded otherwise changes."""
    made = BY_NAME[name]
    mlp = from_hub(made.values()).layers[-1].mlp
    assert isinstance(mlp, ExpertMlp)
    theirs = made.model(made.values()).bfloat16().model.layers[-1].mlp
    into, back = theirs.experts.gate_up_proj, theirs.experts.down_proj
    experts = [
        MlpWeights(Dense(one), None, Dense(other), None)
        for one, other in zip(into.data, back.data, strict=True)
    ]
    weights = ExpertWeights(Dense(theirs.gate.weight.data), None, None, experts, None, None)
    states = random(torch.Generator().manual_seed(5), 200, into.shape[-1])
    with torch.no_grad():
        wanted = theirs(states[None])
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    assert torch.equal(Experts(mlp, weights)(states), wanted.view(states.shape))
