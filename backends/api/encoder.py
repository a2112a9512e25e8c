"""What front rooms must know of a model that reads texts. It stands in the completed config."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from trivet.backends.api.config import parameter
from trivet.protos.model_config_pb2 import ModelConfig

INFO = "encoder_info"
"""The config parameter, as JSON. Backends write it; what a user writes there is written over."""


class Task(StrEnum):
    """What a text, or a pair of texts, becomes."""

    EMBED = "embed"
    """A vector."""
    CLASSIFY = "classify"
    """A score for each label."""
    SCORE = "score"
    """One score, of a pair: a cross-encoder."""
    TOKENS = "token-classify"
    """A label for each token."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What does not change while the model is loaded."""

    task: Task
    max_tokens: int
    """That one text, or pair, may have."""
    max_text_bytes: int
    """That a text may have before it is tokenised."""
    batch_tokens: int
    """How many are computed at a time, padding included."""
    vocabulary_size: int
    dtype: str
    architecture: str
    truncates: bool = False
    """Whether longer texts are cut where a request does not say."""
    pooling: str = ""
    dimensions: int = 0
    labels: tuple[str, ...] = ()
    activation: str = ""
    """What makes scores of logits: softmax, sigmoid or identity."""
    prompts: tuple[str, ...] = ()
    """Names of prompts that may be asked for."""

    def write(self, config: ModelConfig) -> None:
        """Into a config."""
        config.parameters[INFO].string_value = orjson.dumps(asdict(self)).decode()

    @classmethod
    def of(cls, config: ModelConfig) -> "EncoderInfo | None":
        """Of a completed config; None: the model is none that reads texts."""
        text = parameter(config, INFO)
        return _parsed(text) if text else None


@lru_cache(maxsize=256)
def _parsed(text: str) -> EncoderInfo | None:
    try:
        fields: dict[str, Any] = orjson.loads(text)
        for name in ("labels", "prompts"):
            fields[name] = tuple(fields[name])
        return EncoderInfo(**{**fields, "task": Task(fields["task"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        # Of a config that somebody else has written.
        return None


def activated(logits: np.ndarray, name: str) -> np.ndarray:
    """Logits as scores, along the last axis."""
    values = logits.astype(np.float64)
    if name == "softmax":
        values = np.exp(values - values.max(axis=-1, keepdims=True))
        values = values / values.sum(axis=-1, keepdims=True)
    elif name == "sigmoid":
        values = 0.5 * (1 + np.tanh(values / 2))  # 1 / (1 + exp(-x)) without its overflow
    found: np.ndarray = values.astype(np.float32)
    return found
