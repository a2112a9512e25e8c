"""A family that is not in the registry, declared in this file alone: GPT-2's learned positions,
layer norms with biases and GELU. It is read, computed, batched and shared out to ranks as the
built-in ones are."""

import json
import random
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from paged_models import LENGTHS, Paged, Steps, chunked, mixed, one_by_one, reference, whole
from rank_threads import Meeting, ThreadRank
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.kinds import (
    Activation,
    GroupedAttention,
    Layer,
    LayerNorm,
    PlainMlp,
)
from trivet.backends.llm.families.names import Names, Role, Share, WeightName
from trivet.backends.llm.families.registry import FAMILIES, from_hub
from trivet.backends.llm.families.sharing import sharded_config
from trivet.backends.llm.implementations import FUSED, make_model, missing
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

# -- the family ------------------------------------------------------------------------------------

_BLOCK = "transformer.h.{layer}."
NAMES = Names(
    (
        WeightName((Role.EMBEDDING,), "transformer.wte", "token_embd", Share.TOKENS),
        WeightName((Role.POSITIONS,), "transformer.wpe", "position_embd"),
        WeightName((Role.ATTENTION_NORM,), f"{_BLOCK}ln_1", "blk.{layer}.attn_norm"),
        WeightName((Role.QUERY, Role.KEY, Role.VALUE), f"{_BLOCK}attn.c_attn",
                   "blk.{layer}.attn_qkv", Share.HEADS, is_transposed=True),
        WeightName((Role.OUTPUT,), f"{_BLOCK}attn.c_proj", "blk.{layer}.attn_output",
                   Share.INPUTS, is_transposed=True),
        WeightName((Role.MLP_NORM,), f"{_BLOCK}ln_2", "blk.{layer}.ffn_norm"),
        WeightName((Role.UP,), f"{_BLOCK}mlp.c_fc", "blk.{layer}.ffn_up", Share.OUTPUTS,
                   is_transposed=True),
        WeightName((Role.DOWN,), f"{_BLOCK}mlp.c_proj", "blk.{layer}.ffn_down", Share.INPUTS,
                   is_transposed=True),
        WeightName((Role.FINAL_NORM,), "transformer.ln_f", "output_norm"),
        WeightName((Role.HEAD,), "lm_head", "output", Share.TOKENS),
    ),
    needless=(".attn.bias", ".attn.masked_bias"),
)  # fmt: skip
ACTIVATIONS = {"gelu_new": Activation.GELU_TANH, "gelu": Activation.GELU}


def gpt2_config(values: Described) -> LlmConfig:
    norm = LayerNorm(values["layer_norm_epsilon"])
    hidden, heads = values["n_embd"], values["n_head"]
    attention = GroupedAttention(
        heads, heads, hidden // heads, rope=None, has_qkv_bias=True, has_output_bias=True
    )
    inner = values.get("n_inner") or 4 * hidden
    mlp = PlainMlp(inner, ACTIVATIONS[values["activation_function"]])
    return LlmConfig(
        architecture="own",
        names=NAMES,
        hidden_size=hidden,
        vocabulary_size=values["vocab_size"],
        max_positions=values["n_positions"],
        layers=(Layer(attention, mlp, norm),) * values["n_layer"],
        norm=norm,
        has_learned_positions=True,
        ties_embeddings=True,
    )


OWN = {"architectures": ["OwnLMHeadModel"]}
GPT2 = Family("own", "OwnLMHeadModel", gpt2_config)
KNOWN = (*FAMILIES, GPT2)

# -- what it gives ---------------------------------------------------------------------------------

VOCABULARY = 119
PROMPTS = [[random.Random(n).randrange(VOCABULARY) for _ in range(n)] for n in LENGTHS]


@cache
def gpt2(activation: str = "gelu_new") -> Any:
    """A random model of transformers whose every weight matters to its logits."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=96, n_embd=48, n_layer=3, n_head=6,
        activation_function=activation,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(5)
    model: Any = transformers.GPT2LMHeadModel(config)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            is_norm = ".ln_" in name and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_norm else 0.15 * noise)
    return model


def config_of(model: Any) -> LlmConfig:
    return from_hub(model.config.to_dict() | OWN, KNOWN)


@pytest.mark.parametrize("steps", [whole, chunked, one_by_one, mixed])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_logits_equal_transformers(steps: Callable[[], Steps], activation: str) -> None:
    model = gpt2(activation)
    paged = Paged(config_of(model), model.state_dict(), 16, LENGTHS)
    found = paged.run(PROMPTS, steps())
    for ours, theirs in zip(found, reference(model, PROMPTS), strict=True):
        assert theirs.std() > 0.3
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_folder_is_read_by_the_family_that_is_given(tmp_path: Path) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | OWN))
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    config, weights, _ = load_model(tmp_path, torch.float32, KNOWN)
    found = Paged(config, weights, 16, LENGTHS).run(PROMPTS, whole())
    torch.testing.assert_close(
        torch.cat(found), torch.cat(reference(model, PROMPTS)), atol=1e-4, rtol=0
    )
    with pytest.raises(LoadFailed, match="'OwnLMHeadModel'; supported are"):
        load_model(tmp_path, torch.float32)


def test_implementations_that_lack_a_kind_are_passed_over_and_say_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = gpt2()
    config = config_of(model)
    said = missing(FUSED.computes, config)
    assert "it computes no learned positions (the embedding)" in said
    assert "it computes no layer norms (layer 0)" in said
    with caplog.at_level("INFO"):
        made = make_model(
            Weights(model.state_dict(), config), KvCache(config, 2, 16, torch.float32)
        )
    assert isinstance(made, TorchDecoder)
    assert "computed by torch; not by the compiled step" in caplog.text


def rank_logits(rank: ThreadRank, found: list[Tensor]) -> None:
    config, weights = config_of(gpt2()), gpt2().state_dict()

    def make(mine: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        attention = TorchAttention(cache, mine.attentions)
        return TorchDecoder(Weights(weights, config, rank), attention)

    mine = sharded_config(config, rank.size)
    found[rank.rank] = torch.cat(Paged(mine, weights, 16, LENGTHS, make).run(PROMPTS, whole()))


def test_ranks_share_it_out_by_the_rules_of_its_names() -> None:
    meeting, found = Meeting(2), [torch.empty(0)] * 2
    threads = [
        threading.Thread(target=rank_logits, args=(ThreadRank(rank, meeting), found))
        for rank in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = torch.cat(reference(gpt2(), PROMPTS))
    for logits in found:
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)
