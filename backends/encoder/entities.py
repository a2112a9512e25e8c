"""Labelled tokens as transformers' pipeline tells them: one by one, or grouped. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from trivet.backends.encoder.tokens import FolderTokenizer, Row

_OUTSIDE = "O"


def entities_of(
    row: Row, scores: np.ndarray, labels: Sequence[str], tokenizer: FolderTokenizer
) -> list[dict[str, Any]]:
    """Those that are labelled with more than "O"."""
    found = row.encoding
    if found is None:  # ids without a text: there are no places to tell
        return []
    tokens = [
        {
            "entity": labels[int(score.argmax())],
            "score": float(score.max()),
            "index": index,
            "word": found.tokens[index],
            "start": found.offsets[index][0],
            "end": found.offsets[index][1],
        }
        for index, score in enumerate(scores)
        if not found.special_tokens_mask[index]
    ]
    if row.options.aggregation == "none":
        return [token for token in tokens if token["entity"] != _OUTSIDE]
    groups = [_entity(group, tokenizer) for group in _grouped(tokens)]
    return [group for group in groups if group["entity_group"] != _OUTSIDE]


def _grouped(tokens: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Neighbours of one tag; a label that begins with "B-" begins another."""
    groups = [[token] for token in tokens[:1]]
    for before, token in pairwise(tokens):
        begins, tag = _split(token["entity"])
        if tag == _split(before["entity"])[1] and not begins:
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def _split(label: str) -> tuple[bool, str]:
    """Whether it begins an entity, and of what kind that is."""
    if label.startswith("B-"):
        return True, label[2:]
    return False, label.removeprefix("I-")


def _entity(group: list[dict[str, Any]], tokenizer: FolderTokenizer) -> dict[str, Any]:
    return {
        "entity_group": _split(group[0]["entity"])[1],
        "score": float(np.mean([token["score"] for token in group])),
        "word": tokenizer.words([token["word"] for token in group]),
        "start": group[0]["start"],
        "end": group[-1]["end"],
    }
