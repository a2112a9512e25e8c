"""What `output__0` holds, by the file's facts and Triton's parameters. Pure."""

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from trivet.backends.api import InvalidConfig, parameter
from trivet.backends.fil.forest import Facts
from trivet.protos.model_config_pb2 import ModelConfig

OUTPUT = "output__0"
_OUTPUT_CLASS, _PREDICT_PROBA, _THRESHOLD = "output_class", "predict_proba", "threshold"


class Kind(Enum):
    """What the columns are."""

    SCORES = auto()
    """As the library gives them: probabilities of classes, or values."""
    BOTH_CLASSES = auto()
    """A binary classifier's probabilities of the first and the second class."""
    CLASS = auto()
    """One column: the number of the class."""


@dataclass(frozen=True, slots=True)
class Output:
    """How scores become the answer."""

    kind: Kind
    num_columns: int
    threshold: float = 0.5

    @classmethod
    def of(cls, config: ModelConfig, facts: Facts) -> "Output":
        """Of a classifier the probabilities of all classes, or what Triton's parameters say.

        Raises InvalidConfig."""
        gives_class = _flag(config, _OUTPUT_CLASS)
        gives_all = _flag(config, _PREDICT_PROBA)
        if gives_class and not gives_all:
            if not facts.num_classes and facts.num_scores > 1:
                raise InvalidConfig(
                    f"model '{config.name}': parameter {_OUTPUT_CLASS} is 'true', but the file is "
                    f"no classifier: it predicts {facts.num_scores} values"
                )
            return cls(Kind.CLASS, 1, _threshold(config))
        if facts.is_binary and _wants_both(config, gives_all=gives_all):
            return cls(Kind.BOTH_CLASSES, 2)
        return cls(Kind.SCORES, facts.num_scores)

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """[rows, num_columns]."""
        if self.kind is Kind.SCORES:
            return scores
        if self.kind is Kind.BOTH_CLASSES:
            return np.concatenate([1 - scores, scores], axis=1)
        if scores.shape[1] == 1:
            return np.asarray(scores > self.threshold, dtype=np.float32)
        return np.asarray(scores.argmax(axis=1), dtype=np.float32)[:, None]


def _wants_both(config: ModelConfig, *, gives_all: bool) -> bool:
    """Dims that the config gives decide: Triton's own versions differ in what is usual."""
    dims = next((list(each.dims) for each in config.output if each.name == OUTPUT), [])
    if dims:
        return dims == [2]
    is_said = _OUTPUT_CLASS in config.parameters or _PREDICT_PROBA in config.parameters
    return gives_all or not is_said


def _flag(config: ModelConfig, name: str) -> bool:
    text = parameter(config, name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidConfig(
            f"model '{config.name}': parameter {name} is '{text}', but must be 'true' or 'false'"
        )
    return text == "true"


def _threshold(config: ModelConfig) -> float:
    text = parameter(config, _THRESHOLD, "0.5")
    try:
        return float(text)
    except ValueError:
        raise InvalidConfig(
            f"model '{config.name}': parameter {_THRESHOLD} is '{text}', but must be a number"
        ) from None
