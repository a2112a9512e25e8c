"""What front rooms must know of a model that labels images. It stands in the completed config."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import orjson

from trivet.backends.api.config import parameter
from trivet.protos.model_config_pb2 import ModelConfig

INFO = "image_classifier_info"
"""The config parameter, as JSON. Backends write it; what a user writes there is written over."""
IMAGE = "image"
"""The input: an encoded file for each row."""


@dataclass(frozen=True, slots=True)
class ImageClassifierInfo:
    """What does not change while the model is loaded."""

    labels: tuple[str, ...]
    activation: str
    """What makes scores of logits: softmax, sigmoid or identity."""

    def write(self, config: ModelConfig) -> None:
        """Into a config."""
        config.parameters[INFO].string_value = orjson.dumps(asdict(self)).decode()

    @classmethod
    def of(cls, config: ModelConfig) -> "ImageClassifierInfo | None":
        """Of a completed config; None: the model is none that labels images."""
        text = parameter(config, INFO)
        return _parsed(text) if text else None


@lru_cache(maxsize=256)
def _parsed(text: str) -> ImageClassifierInfo | None:
    try:
        fields: dict[str, Any] = orjson.loads(text)
        return ImageClassifierInfo(tuple(map(str, fields["labels"])), str(fields["activation"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        # Of a config that somebody else has written.
        return None
