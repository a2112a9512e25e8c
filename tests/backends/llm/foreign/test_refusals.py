"""What is wrong is never served: a way that gives other logits is passed over, and a model that no
way computes is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_classes import open_folder, save
from safetensors.torch import load_file, save_file
from tiny_decoders import tiny_model
from torch import Tensor, nn

from trivet.backends.api import LoadFailed
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.looking import OtherWayError, look
from trivet.backends.llm.foreign.memories import Part, States
from trivet.backends.llm.foreign.planning import plan_model
from trivet.backends.llm.foreign.products import pack_products
from trivet.backends.llm.foreign.serial_ways import IN_OWN_CACHES


class LeakingNorm(nn.Module):
    """Adds what the other tokens of a step are to each: a model that mixes sequences."""

    def __init__(self, inner: Any, *, is_causal: bool) -> None:
        super().__init__()
        self.inner = inner
        self._is_causal = is_causal

    def forward(self, states: Tensor) -> Any:
        seen = states.cumsum(1) if self._is_causal else states.sum(1, keepdim=True)
        return self.inner(states + 0.2 * seen)


class ReadsWeights(nn.Module):
    """Multiplies by its linear layer's weight itself."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, states: Tensor) -> Any:
        return states @ self.inner.weight.t()


def leaking(*, is_causal: bool) -> Any:
    model = tiny_model("stablelm")
    model.model.norm = LeakingNorm(model.model.norm, is_causal=is_causal)
    return model


def test_a_model_that_mixes_the_tokens_of_a_step_is_computed_anew_each_time() -> None:
    plan = plan_model(leaking(is_causal=True), torch.float32, 8)
    assert plan.name.startswith("without a cache")


def test_a_model_that_looks_ahead_is_refused() -> None:
    with pytest.raises(LoadFailed, match="cannot be computed over a paged cache: logits differ"):
        plan_model(leaking(is_causal=False), torch.float32, 8)


def test_a_cap_on_scores_that_changes_little_is_not_overlooked() -> None:
    model = tiny_model("gemma2")
    assert model.config.attn_logit_softcapping == 50.0
    assert plan_model(model, torch.float32, 8).name == "one sequence after the other"


def test_keys_that_are_chosen_where_there_are_many_are_not_overlooked() -> None:
    model = tiny_model("minimax_m3_vl_text")
    assert "minimax_m3_sparse" in model.config.layer_types
    assert plan_model(model, torch.float32, 8).name == IN_OWN_CACHES


class HandsOnAnIndex(nn.Module):
    """Calls our attention with an index of keys, as layers do whose kernels choose by one."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs, block_indices=torch.zeros(1, dtype=torch.int64))


def test_a_layer_that_hands_on_what_attention_may_choose_by_is_passed_over() -> None:
    model = tiny_model("stablelm")
    layer = model.model.layers[1]
    layer.self_attn = HandsOnAnIndex(layer.self_attn)
    bridge.register()
    with (
        torch.no_grad(),
        pytest.raises(OtherWayError, match=r"layer 1 .* hands its attention block_indices"),
    ):
        look(model, torch.arange(3, 9)[None])


def drop_a_weight(weights: dict[str, Tensor]) -> None:
    del weights["model.norm.weight"]


def add_a_weight(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.adapter.weight"] = torch.zeros(2, 2)


def narrow_a_weight(weights: dict[str, Tensor]) -> None:
    weights["model.norm.weight"] = torch.ones(8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_a_weight, "lack 1 weights that StableLmForCausalLM has, 'model.norm.weight'"),
        (add_a_weight, "1 weights that StableLmForCausalLM does not know, 'model.layers.0.adapter"),
        (narrow_a_weight, "of another shape|size mismatch|ignore_mismatched_sizes"),
    ],
)
def test_weights_of_another_model_are_refused(
    change: Callable[[dict[str, Tensor]], None], said: str, tmp_path: Path
) -> None:
    save(tiny_model("stablelm"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(LoadFailed, match=said):
        open_folder(tmp_path, with_families=False)


def test_products_are_packed_for_a_processor_where_nothing_changes() -> None:
    model = tiny_model("stablelm").bfloat16()
    plan = plan_model(model, torch.bfloat16, 8)
    prompt = torch.arange(3, 20)[None]
    before = model(input_ids=prompt, use_cache=False).logits
    assert pack_products(model, plan.config.vocabulary_size).products
    after = model(input_ids=prompt, use_cache=False).logits
    torch.testing.assert_close(after, before, atol=0.05, rtol=0.05)
    assert model.lm_head.weight.numel() == 0


def test_products_whose_weights_the_model_reads_itself_are_left_alone() -> None:
    model = tiny_model("stablelm").bfloat16()
    head = model.lm_head
    model.lm_head = ReadsWeights(head)
    assert not pack_products(model, 96).products
    assert head.weight.numel() > 0


def part(
    start: int, num_tokens: int, first_block: int = 1, new_blocks: tuple[int, ...] = ()
) -> Part:
    nothing = torch.empty(0, dtype=torch.int64)
    tokens = torch.zeros(num_tokens, dtype=torch.int64)
    return Part(tokens, start, first_block, new_blocks or (first_block,), nothing, nothing)


def test_a_state_of_other_tokens_is_not_gone_on_with() -> None:
    states: States[str] = States(max_num_states=2)
    states.put(part(0, 5), "after five")
    assert states.take(part(5, 1)) == "after five"
    states.put(part(5, 1), "after six")
    with pytest.raises(RuntimeError, match="of 7 tokens goes on, of which a state after 6"):
        states.take(part(7, 1))


def test_states_of_sequences_that_run_outlive_those_of_others() -> None:
    states: States[str] = States(max_num_states=2)
    for block in (1, 2, 3):
        states.put(part(0, 5, block), str(block))
    assert states.take(part(5, 1, 2)) == "2"
    with pytest.raises(RuntimeError):
        states.take(part(5, 1, 1))
    assert states.take(part(0, 1, 3)) is None


def test_a_state_goes_when_a_block_of_its_sequence_is_anothers() -> None:
    states: States[str] = States(max_num_states=8)
    states.put(part(0, 8, 1, (1, 3)), "ended")
    states.put(part(0, 4, 2), "runs")
    states.put(part(4, 4, 2, (3,)), "runs on")
    assert states.take(part(8, 1, 2)) == "runs on"
    with pytest.raises(RuntimeError, match="of 8 tokens goes on, of which a state after 0"):
        states.take(part(8, 1, 1))


def test_a_sequence_does_not_answer_for_blocks_of_one_that_began_where_it_does() -> None:
    states: States[str] = States(max_num_states=8)
    states.put(part(0, 8, 1, (1, 3)), "ended")
    assert states.take(part(0, 4, 1)) is None
    states.put(part(0, 4, 1), "runs")
    states.put(part(0, 4, 3), "another")
    assert states.take(part(4, 1, 1)) == "runs"
