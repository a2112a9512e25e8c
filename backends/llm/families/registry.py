"""The families that there are, and which one a file is of."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.llama import LLAMA
from trivet.backends.llm.families.mistral import MISTRAL
from trivet.backends.llm.families.quantisation import refuse_quantisations
from trivet.backends.llm.families.qwen import QWEN2, QWEN3

FAMILIES: tuple[Family, ...] = (LLAMA, MISTRAL, QWEN2, QWEN3)


def from_hub(values: Mapping[str, Any], families: Sequence[Family] = FAMILIES) -> LlmConfig:
    """The config of a Hugging Face folder. Raises LoadFailed for what is not supported."""
    config = Described(values, "config.json")
    name = _hub_class(values)
    known = {family.hub_class: family for family in families}
    if name not in known:
        raise LoadFailed(
            f"config.json names the architecture '{name}'; supported are {sorted(known)}"
        )
    refuse_quantisations(config.get("quantization_config") or {})
    return known[name].from_hub(config)


def is_known(values: Mapping[str, Any], families: Sequence[Family] = FAMILIES) -> bool:
    """Whether a config.json's model is of one of the families."""
    return _hub_class(values) in {family.hub_class for family in families}


def _hub_class(values: Mapping[str, Any]) -> str:
    return str((values.get("architectures") or ["?"])[0])


def from_gguf(
    metadata: Described, tensor_names: Container[str], families: Sequence[Family] = FAMILIES
) -> LlmConfig:
    """The config in GGUF metadata. Raises LoadFailed for what is not supported."""
    architecture = metadata.get("general.architecture", "?")
    known = {family.architecture: family.from_gguf for family in families if family.from_gguf}
    read = known.get(architecture)
    if read is None:
        raise LoadFailed(
            f"the GGUF file's architecture is '{architecture}'; supported are {sorted(known)}"
        )
    return read(metadata, tensor_names)
