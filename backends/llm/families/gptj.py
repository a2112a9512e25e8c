"""GPT-J (2021) and GPT-NeoX (2022): EleutherAI's, with attention and MLP side by side."""

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.gpt2 import GPT2_KEYS
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_model
from trivet.backends.llm.families.kinds import (
    Arrangement,
    GroupedAttention,
    Layer,
    LayerNorm,
    PlainMlp,
    Rope,
)
from trivet.backends.llm.families.names import Names, Role, weight
from trivet.backends.llm.families.rope import RopeRules, hub_rope

_J = "transformer.h.{layer}."
_J_NAMES = Names(
    (
        weight("transformer.wte", Role.EMBEDDING),
        weight(f"{_J}ln_1", Role.ATTENTION_NORM),
        weight(f"{_J}attn.q_proj", Role.QUERY, interleaves=True),
        weight(f"{_J}attn.k_proj", Role.KEY, interleaves=True),
        weight(f"{_J}attn.v_proj", Role.VALUE),
        weight(f"{_J}attn.out_proj", Role.OUTPUT),
        weight(f"{_J}mlp.fc_in", Role.UP),
        weight(f"{_J}mlp.fc_out", Role.DOWN),
        weight("transformer.ln_f", Role.FINAL_NORM),
        weight("lm_head", Role.HEAD),
    ),
    needless=(".attn.bias", ".attn.masked_bias", ".attn.embed_positions"),
)
_NEOX = "gpt_neox.layers.{layer}."
_NEOX_NAMES = Names(
    (
        weight("gpt_neox.embed_in", Role.EMBEDDING),
        weight(f"{_NEOX}input_layernorm", Role.ATTENTION_NORM),
        weight(
            f"{_NEOX}attention.query_key_value",
            Role.QUERY,
            Role.KEY,
            Role.VALUE,
            groups_heads=True,
        ),
        weight(f"{_NEOX}attention.dense", Role.OUTPUT),
        weight(f"{_NEOX}post_attention_layernorm", Role.MLP_NORM),
        weight(f"{_NEOX}mlp.dense_h_to_4h", Role.UP),
        weight(f"{_NEOX}mlp.dense_4h_to_h", Role.DOWN),
        weight("gpt_neox.final_layer_norm", Role.FINAL_NORM),
        weight("embed_out", Role.HEAD),
    ),
    needless=(".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"),
)


def _gptj(given: Described) -> LlmConfig:
    config = given.renamed(GPT2_KEYS)
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    norm = LayerNorm(config.number("layer_norm_epsilon", 1e-5))
    size = config.size("rotary_dim", 64) if "rotary_dim" in config else 64
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_heads,
        heads.head_dim,
        rope=Rope(10_000.0, size=0 if size == heads.head_dim else size),
    )
    inner = config.size("n_inner", 4 * config.size("hidden_size"))
    mlp = PlainMlp(inner, activation(config, "activation_function", "gelu_new"))
    layer = Layer(attention, mlp, norm, Arrangement.PARALLEL)
    layers = [layer] * config.size("num_hidden_layers")
    return hub_model(config, "gptj", _J_NAMES, layers, norm, has_head_bias=True)


def _gpt_neox(config: Described) -> LlmConfig:
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    norm = LayerNorm(config.number("layer_norm_eps", 1e-5))
    has_bias = config.flag("attention_bias", default=True)
    rules = RopeRules(theta_key="rotary_emb_base", share=0.25, share_key="rotary_pct")
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_heads,
        heads.head_dim,
        rope=hub_rope(config, heads.head_dim, rules),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    )
    is_parallel = config.flag("use_parallel_residual", default=True)
    mlp = PlainMlp(config.size("intermediate_size"), activation(config, default="gelu"))
    arrangement = Arrangement.PARALLEL_NORMS if is_parallel else Arrangement.PRE_NORM
    layers = [Layer(attention, mlp, norm, arrangement)] * config.size("num_hidden_layers")
    return hub_model(config, "gptneox", _NEOX_NAMES, layers, norm)


GPTJ = Family("gptj", "GPTJForCausalLM", _gptj)
_NEOX_KEYS = GgufKeys(
    {"use_parallel_residual": "use_parallel_residual"},
    {"attention_bias": "attn_qkv.bias"},
    rotates_part=True,
)
GPT_NEOX = Family(
    "gptneox", "GPTNeoXForCausalLM", _gpt_neox, gguf_reader(_gpt_neox, "gptneox", _NEOX_KEYS)
)
