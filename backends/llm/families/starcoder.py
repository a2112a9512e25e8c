"""StarCoder (BigCode, 2023), GPT-2's shape with one key/value head; StarCoder 2 (2024), the Llama
shape with layer norms and biases."""

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.gpt2 import GPT2_KEYS, gpt2_layers, gpt2_model
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_model
from trivet.backends.llm.families.kinds import GroupedAttention, Layer, LayerNorm, PlainMlp
from trivet.backends.llm.families.llama import HALVES_NAMES, one_window
from trivet.backends.llm.families.names import Role, weight
from trivet.backends.llm.families.rope import hub_rope

_NAMES2 = HALVES_NAMES.having(
    weight("model.layers.{layer}.mlp.c_fc", Role.UP),
    weight("model.layers.{layer}.mlp.c_proj", Role.DOWN),
)


def _starcoder2(config: Described) -> LlmConfig:
    heads = HeadSizes.of(config, num_kv_heads=2)
    norm = LayerNorm(config.number("norm_epsilon", 1e-5))
    has_bias = config.flag("use_bias", default=True)
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim),
        window=one_window(config),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    )
    act = activation(config, default="gelu_pytorch_tanh")
    layer = Layer(attention, PlainMlp(config.size("intermediate_size"), act, has_bias), norm)
    layers = [layer] * config.size("num_hidden_layers")
    return hub_model(config, "starcoder2", _NAMES2, layers, norm, ties=True)


def _starcoder(given: Described) -> LlmConfig:
    config = given.renamed(GPT2_KEYS)
    config.only("add_cross_attention", False)
    is_shared = config.flag("multi_query", default=True)
    num_kv_heads = 1 if is_shared else config.size("num_attention_heads")
    layers = gpt2_layers(config, num_kv_heads, "gelu_pytorch_tanh")
    return gpt2_model(config, "starcoder", layers, is_transposed=False, groups_heads=not is_shared)


_KEYS = GgufKeys(
    {
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
        "feed_forward_length": "n_inner",
        "attention.head_count_kv": "num_shared",
    },
    derived=lambda values: {"multi_query": values.get("num_shared") == 1},
    has_rope=False,
)
STARCODER = Family(
    "starcoder",
    "GPTBigCodeForCausalLM",
    _starcoder,
    gguf_reader(_starcoder, "starcoder", _KEYS),
)
_KEYS2 = GgufKeys({"attention.layer_norm_epsilon": "norm_epsilon"}, {"use_bias": "attn_q.bias"})
STARCODER2 = Family(
    "starcoder2",
    "Starcoder2ForCausalLM",
    _starcoder2,
    gguf_reader(_starcoder2, "starcoder2", _KEYS2),
)
