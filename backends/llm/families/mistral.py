"""Mistral: the Llama shape, with a sliding window in all layers or none (Jiang et al., 2023)."""

from collections.abc import Container

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.llama import gguf_shape, hub_shape, one_window


def _from_hub(config: Described) -> LlmConfig:
    window = one_window(config, 4096)
    return hub_shape(config, "mistral", sliding_window=window).config()


def _from_gguf(metadata: Described, tensor_names: Container[str]) -> LlmConfig:
    return gguf_shape(metadata, tensor_names, "mistral").config()


MISTRAL = Family("mistral", "MistralForCausalLM", _from_hub, _from_gguf)
