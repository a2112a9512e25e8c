"""What a model answered to one case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool."""

    name: str
    arguments: Any
    """As JSON; the text itself where it is none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text with calls, or tensors."""

    text: str = ""
    calls: Sequence[Call] = ()
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    latency_s: float = 0.0
    cost: float = 0.0
    """As the server told it; 0 where it has no prices."""
    error: str = ""
    """Why there is no answer."""

    @property
    def shown(self) -> str:
        """For people."""
        if self.error:
            return self.error
        parts = [self.text] if self.text else []
        parts += [f"{call.name}({call.arguments})" for call in self.calls]
        parts += [
            f"{name} = {np.array2string(v, threshold=20)}" for name, v in self.outputs.items()
        ]
        return "\n".join(parts)
