"""Scores of pairs: a cross-encoder's, or how alike two vectors are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trivet.backends.api import InvalidRequest
from trivet.backends.api.encoder import Task
from trivet.server.core import Inference
from trivet.server.http.encoding.asking import Item, Question, ask
from trivet.server.http.encoding.chosen import Chosen

SCORING = (Task.SCORE, Task.EMBED, Task.CLASSIFY)
"""Tasks of models that can be asked for scores. A classifier is refused with its number of labels.
"""


@dataclass(frozen=True, slots=True)
class Scored:
    """In the order of the pairs."""

    scores: list[float]
    num_tokens: int


async def score(
    core: Inference,
    request_id: str,
    chosen: Chosen,
    pairs: Sequence[tuple[str, str]],
    question: Question,
    *,
    raw: bool = False,
) -> Scored:
    """How well the second text of each pair answers the first. `raw`: as the model computes it,
    before it is made a number from 0 to 1. Raises a ServingError."""
    if chosen.info.task is Task.EMBED:
        return await _alike(core, request_id, chosen, pairs, question)
    if chosen.info.task is not Task.SCORE:
        raise InvalidRequest(
            f"model: `{chosen.name}` has {len(chosen.info.labels)} labels; scores are given by "
            "models with one label, or by those that make embeddings"
        )
    output = "logits" if raw else "scores"
    items = [Item(first, second) for first, second in pairs]
    found = await ask(core, request_id, chosen, items, replace(question, outputs=(output,)))
    scores = [float(values[output][0]) for values in found]
    return Scored(scores, sum(values["num_tokens"] for values in found))


async def _alike(
    core: Inference,
    request_id: str,
    chosen: Chosen,
    pairs: Sequence[tuple[str, str]],
    question: Question,
) -> Scored:
    """The cosine of their vectors; a text that comes several times is computed once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    wish = replace(question, outputs=("embedding",))
    found = await ask(core, request_id, chosen, [Item(text) for text in texts], wish)
    vectors = {text: _unit(each["embedding"]) for text, each in zip(texts, found, strict=True)}
    scores = [float(vectors[first] @ vectors[second]) for first, second in pairs]
    return Scored(scores, sum(values["num_tokens"] for values in found))


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    unit: np.ndarray = vector / max(float(length), 1e-12)
    return unit


def ranked(scores: Sequence[float]) -> list[int]:
    """Indices, the best score first; equal ones in their order."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])
