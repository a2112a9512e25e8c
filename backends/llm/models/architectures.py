"""Model classes by architecture."""

from trivet.backends.api import LoadFailed
from trivet.backends.llm.models.llama import LlamaModel

MODELS: dict[str, type[LlamaModel]] = dict.fromkeys(
    ("llama", "mistral", "qwen2", "qwen3"), LlamaModel
)


def model_class(architecture: str) -> type[LlamaModel]:
    """The class for an architecture. Raises LoadFailed for an unknown one."""
    if architecture not in MODELS:
        raise LoadFailed(f"architecture '{architecture}' is not one of {sorted(MODELS)}")
    return MODELS[architecture]
