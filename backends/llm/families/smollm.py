"""SmolLM3 (Hugging Face, 2025): the Llama shape, with layers that know no positions."""

from dataclasses import replace

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gguf import GgufKeys, gguf_reader
from trivet.backends.llm.families.hub import FULL, SLIDING, layer_types
from trivet.backends.llm.families.llama import LLAMA_NAMES, hub_shape
from trivet.backends.llm.families.rope import RopeRules


def _from_hub(config: Described) -> LlmConfig:
    has_bias = config.flag("attention_bias", default=False)
    config = config.having(tie_word_embeddings=config.flag("tie_word_embeddings", default=True))
    model = hub_shape(
        config.without("head_dim"),
        "smollm3",
        RopeRules(theta=2_000_000.0),
        names=LLAMA_NAMES,
        has_mlp_bias=config.flag("mlp_bias", default=False),
        has_qkv_bias=has_bias,
        has_output_bias=has_bias,
    ).config()
    rotates = _rotates(config, model.num_layers)
    windows = _windows(config, rotates)
    layers = [
        replace(
            layer,
            attention=replace(
                layer.attention, rope=layer.attention.rope if rotated else None, window=window
            ),
        )
        for layer, rotated, window in zip(model.layers, rotates, windows, strict=True)
    ]
    return replace(model, layers=tuple(layers))


def _rotates(config: Described, num_layers: int) -> list[bool]:
    """Of each layer; the key says, in spite of its name, which have rotary positions."""
    given = config.get("no_rope_layers")
    if given is None:
        interval = config.size("no_rope_layer_interval", 4)
        return [(layer + 1) % interval != 0 for layer in range(num_layers)]
    if not isinstance(given, list) or len(given) != num_layers or not set(given) <= {0, 1}:
        raise LoadFailed(
            f"config.json has no_rope_layers {str(given)[:64]}; it must be a list of {num_layers} "
            "times 0 or 1, of which 1 stands for rotary positions"
        )
    return [bool(each) for each in given]


def _windows(config: Described, rotates: list[bool]) -> list[int]:
    if not config.flag("use_sliding_window", default=False):
        config.only("layer_types", None, [FULL] * len(rotates))
        return [0] * len(rotates)
    window = config.size("sliding_window", 0) if "sliding_window" in config else 0
    default = [FULL if rotated or not window else SLIDING for rotated in rotates]
    return [window if word == SLIDING else 0 for word in layer_types(config, default)]


SMOLLM3 = Family(
    "smollm3", "SmolLM3ForCausalLM", _from_hub, gguf_reader(_from_hub, "smollm3", GgufKeys())
)
