"""OPT: learned positions and ReLU (Zhang et al., 2022)."""

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.hub import HeadSizes, activation, hub_model
from trivet.backends.llm.families.kinds import GroupedAttention, Layer, LayerNorm, PlainMlp
from trivet.backends.llm.families.names import Names, Role, weight

_MODEL = "model.decoder."
_LAYER = f"{_MODEL}layers.{{layer}}."
_NAMES = Names((
    weight(f"{_MODEL}embed_tokens", Role.EMBEDDING),
    weight(f"{_MODEL}embed_positions", Role.POSITIONS),
    weight(f"{_LAYER}self_attn_layer_norm", Role.ATTENTION_NORM),
    weight(f"{_LAYER}self_attn.q_proj", Role.QUERY),
    weight(f"{_LAYER}self_attn.k_proj", Role.KEY),
    weight(f"{_LAYER}self_attn.v_proj", Role.VALUE),
    weight(f"{_LAYER}self_attn.out_proj", Role.OUTPUT),
    weight(f"{_LAYER}final_layer_norm", Role.MLP_NORM),
    weight(f"{_LAYER}fc1", Role.UP),
    weight(f"{_LAYER}fc2", Role.DOWN),
    weight(f"{_MODEL}final_layer_norm", Role.FINAL_NORM),
    weight("lm_head", Role.HEAD),
))  # fmt: skip


def _from_hub(config: Described) -> LlmConfig:
    # OPT 350M's, alone: norms behind the sums, no last norm, and smaller embeddings.
    config.only("do_layer_norm_before", True)
    config.only("_remove_final_layer_norm", False)
    config.only("word_embed_proj_dim", None, config.size("hidden_size"))
    heads = HeadSizes.of(config.without("num_key_value_heads", "head_dim"))
    has_weights = config.flag("layer_norm_elementwise_affine", default=True)
    norm = LayerNorm(1e-5, has_bias=has_weights, has_weight=has_weights)
    has_bias = config.flag("enable_bias", default=True)
    attention = GroupedAttention(
        heads.num_heads,
        heads.num_heads,
        heads.head_dim,
        rope=None,
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    )
    act = activation(config, "activation_function", "relu")
    layer = Layer(attention, PlainMlp(config.size("ffn_dim"), act, has_bias), norm)
    return hub_model(
        config,
        "opt",
        _NAMES,
        [layer] * config.size("num_hidden_layers"),
        norm,
        ties=True,
        has_learned_positions=True,
        first_position=2,
    )


OPT = Family("opt", "OPTForCausalLM", _from_hub)
