"""The families that there are, and which one a file is of."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.alibi import BLOOM, MPT
from trivet.backends.llm.families.cohere import COHERE, COHERE2
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.deepseek import DEEPSEEK2, DEEPSEEK3
from trivet.backends.llm.families.described import Described, NotComputed
from trivet.backends.llm.families.experts import GLM4_MOE, MIXTRAL, OLMOE, QWEN2_MOE, QWEN3_MOE
from trivet.backends.llm.families.falcon import FALCON
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.gemma import GEMMA, GEMMA2, GEMMA3
from trivet.backends.llm.families.glm import GLM, GLM4
from trivet.backends.llm.families.gpt2 import GPT2
from trivet.backends.llm.families.gpt_oss import GPT_OSS
from trivet.backends.llm.families.gptj import GPT_NEOX, GPTJ
from trivet.backends.llm.families.granite import GRANITE
from trivet.backends.llm.families.llama import LLAMA
from trivet.backends.llm.families.mistral import MISTRAL
from trivet.backends.llm.families.olmo import OLMO, OLMO2, OLMO3
from trivet.backends.llm.families.opt import OPT
from trivet.backends.llm.families.phi import PHI, PHI3
from trivet.backends.llm.families.quantisation import quantisation
from trivet.backends.llm.families.qwen import QWEN2, QWEN3
from trivet.backends.llm.families.smollm import SMOLLM3
from trivet.backends.llm.families.stablelm import NEMOTRON, STABLELM
from trivet.backends.llm.families.starcoder import STARCODER, STARCODER2

FAMILIES: tuple[Family, ...] = (
    LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, PHI, PHI3, GRANITE, COHERE, COHERE2,
    SMOLLM3, OLMO, OLMO2, OLMO3, STARCODER, STARCODER2, STABLELM, NEMOTRON, GLM, GLM4, GPT2, GPTJ,
    GPT_NEOX, OPT, FALCON, BLOOM, MPT, MIXTRAL, QWEN2_MOE, QWEN3_MOE, OLMOE,
    GLM4_MOE, DEEPSEEK2, DEEPSEEK3, GPT_OSS,
)  # fmt: skip


class UnknownArchitecture(NotComputed):
    """A GGUF file's architecture, of which there is no family."""


def from_hub(values: Mapping[str, Any], families: Sequence[Family] = FAMILIES) -> LlmConfig:
    """The config of a Hugging Face folder. Raises LoadFailed for what is not supported."""
    config = Described(values, "config.json")
    name = hub_class(values)
    known = {family.hub_class: family for family in families}
    if name not in known:
        raise LoadFailed(
            f"config.json names the architecture '{name}'; supported are {sorted(known)}"
        )
    quantisation(config.get("quantization_config") or {})
    return known[name].from_hub(config)


def is_known(values: Mapping[str, Any], families: Sequence[Family] = FAMILIES) -> bool:
    """Whether a config.json's model is of one of the families."""
    return hub_class(values) in {family.hub_class for family in families}


def hub_class(values: Mapping[str, Any]) -> str:
    """The class that a config.json names; '?' where it names none."""
    named = values.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "?"


def from_gguf(
    metadata: Described, tensor_names: Container[str], families: Sequence[Family] = FAMILIES
) -> LlmConfig:
    """The config in GGUF metadata. Raises LoadFailed for what is not supported."""
    architecture = metadata.get("general.architecture", "?")
    has_experts = bool(metadata.get(f"{architecture}.expert_count"))
    known = [family for family in families if family.from_gguf]
    found = [family for family in known if family.architecture == architecture]
    # The last word is with what the file has, where one architecture's are several families.
    found.sort(key=lambda family: family.is_of_experts == has_experts)
    if not found or (read := found[-1].from_gguf) is None:
        names = sorted({family.architecture for family in known})
        raise UnknownArchitecture(
            f"the GGUF file's architecture is '{architecture}'; supported are {names}; of others, "
            "serve the model's Hugging Face folder, which transformers' own classes compute"
        )
    return read(metadata, tensor_names)
