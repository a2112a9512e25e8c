"""How a model of transformers is computed. Nothing of transformers is imported for this."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trivet.backends.llm.attention.base import Attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.foreign.config import ForeignConfig
from trivet.backends.llm.steps.runner import HeldModel


@dataclass(frozen=True, slots=True)
class Plan:
    """A way of computing a model."""

    name: str
    """In the log."""
    config: ForeignConfig
    make: Callable[[KvCache, Attention], HeldModel]
    """Over a cache; it may use the attention over it or not."""


class ModelTensors(dict[str, Tensor]):
    """A model's tensors, with the model that they are in."""

    def __init__(self, model: Any, plan: Plan) -> None:
        super().__init__(model.named_parameters())
        self.model = model
        self.plan = plan
