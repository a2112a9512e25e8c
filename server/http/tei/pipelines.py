"""Answers as Hugging Face's pipelines for classification give them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from trivet.backends.api import InvalidRequest
from trivet.backends.api.encoder import EncoderInfo, activated
from trivet.backends.api.image_classifier import ImageClassifierInfo

_FUNCTIONS = ("softmax", "sigmoid", "none")
_OUTSIDE = "O"


def scored_labels(labels: Sequence[str], scores: np.ndarray) -> list[dict[str, Any]]:
    """Labels with their scores, the best first."""
    found = [
        {"score": score, "label": label}
        for label, score in zip(labels, scores.tolist(), strict=True)
    ]
    return sorted(found, key=lambda each: -each["score"])


def labels_answer(
    info: EncoderInfo | ImageClassifierInfo,
    logits: Sequence[np.ndarray] | np.ndarray,
    parameters: Mapping[str, Any],
) -> list[list[dict[str, Any]]]:
    """Of each text or image, `top_k` labels; 5 of them where it is not given, as there. Raises
    InvalidRequest."""
    top_k = parameters.get("top_k")
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise InvalidRequest("parameters.top_k: it must be a number from 1 on")
    function = parameters.get("function_to_apply") or info.activation
    if function not in (*_FUNCTIONS, info.activation):
        raise InvalidRequest(
            f"parameters.function_to_apply: it must be one of {', '.join(_FUNCTIONS)}"
        )
    found = [scored_labels(info.labels, activated(each, function)) for each in logits]
    return [each[: top_k or 5] for each in found]


def entities_answer(
    found: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], *, is_single: bool
) -> Any:
    """The entities of each text, without those that are to be ignored."""
    given = parameters.get("ignore_labels")
    ignored = set(map(str, given)) if isinstance(given, list) else {_OUTSIDE}
    documents = [
        [entity for entity in orjson.loads(values["entities"][0]) if _tag(entity) not in ignored]
        for values in found
    ]
    return documents[0] if is_single else documents


def _tag(entity: Mapping[str, Any]) -> str:
    return str(entity.get("entity_group", entity.get("entity")))
