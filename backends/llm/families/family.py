"""A family: whose models it knows, and how it reads what a file says of one."""

from collections.abc import Callable, Container
from dataclasses import dataclass

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described

HubReader = Callable[[Described], LlmConfig]
"""Reads config.json. Raises LoadFailed for what is not supported."""
GgufReader = Callable[[Described, Container[str]], LlmConfig]
"""Reads metadata, beside the names of the tensors. Raises LoadFailed for what is not supported."""


@dataclass(frozen=True, slots=True)
class Family:
    """Models that differ in their config only."""

    architecture: str
    """GGUF's word for it, and ours."""
    hub_class: str
    """Hugging Face's class, which config.json names."""
    from_hub: HubReader
    from_gguf: GgufReader | None = None
    """None: its GGUF files are not read."""
    is_of_experts: bool = False
    """Whether it is the one with experts of those that GGUF has one word for."""
