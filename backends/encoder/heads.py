"""What a request gets of what was computed: vectors, scores of labels, or labels of tokens."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import orjson

from trivet.backends.api import DataType
from trivet.backends.api.encoder import EncoderInfo, Task, activated
from trivet.backends.encoder.computing import Body, Computed
from trivet.backends.encoder.entities import entities_of
from trivet.backends.encoder.folder import Folder
from trivet.backends.encoder.pooling import Pooler
from trivet.backends.encoder.tokens import FolderTokenizer, Row

EMBEDDING, TOKEN_EMBEDDINGS = "embedding", "token_embeddings"
SCORES, LOGITS, LABEL, ENTITIES = "scores", "logits", "label", "entities"
NUM_TOKENS, TOKENS = "num_tokens", "tokens"
ON_DEMAND = frozenset({TOKEN_EMBEDDINGS, TOKENS, LOGITS})
"""Outputs that only a request that names them gets: they are large, or cost time."""
_SMALLEST = 1e-12

OutputSpec = tuple[str, DataType, tuple[int, ...]]
_SHARED: tuple[OutputSpec, ...] = (
    (NUM_TOKENS, DataType.INT32, (1,)),
    (TOKENS, DataType.BYTES, (1,)),
)


class Head(Protocol):
    """One task."""

    def fill(self, computed: Computed, rows: Sequence[Row], wanted: frozenset[str]) -> None:
        """Gives the rows their results, by output; `wanted`: those of ON_DEMAND that any asked
        for."""


def outputs_of(task: Task, info: EncoderInfo) -> tuple[OutputSpec, ...]:
    """What a model of this task has."""
    size, count = info.dimensions, len(info.labels)
    fp32, texts = DataType.FP32, DataType.BYTES
    own: dict[Task, tuple[OutputSpec, ...]] = {
        Task.EMBED: ((EMBEDDING, fp32, (size,)), (TOKEN_EMBEDDINGS, fp32, (-1, -1))),
        Task.CLASSIFY: ((SCORES, fp32, (count,)), (LABEL, texts, (1,)), (LOGITS, fp32, (count,))),
        Task.SCORE: ((SCORES, fp32, (1,)), (LOGITS, fp32, (1,))),
        Task.TOKENS: ((ENTITIES, texts, (1,)), (LOGITS, fp32, (-1, count))),
    }
    return own[task] + _SHARED


def head_of(folder: Folder, body: Body, tokenizer: FolderTokenizer) -> Head:
    """The head of a folder's task. Raises LoadFailed."""
    if folder.task is Task.EMBED:
        return VectorHead(folder, body, tokenizer)
    if folder.task is Task.TOKENS:
        return TokenHead(folder, body, tokenizer)
    return LabelHead(folder, body)


class VectorHead:
    """Sentence embeddings, and those of tokens."""

    def __init__(self, folder: Folder, body: Body, tokenizer: FolderTokenizer) -> None:
        self._body = body
        self._tokenizer = tokenizer
        self._dimensions = folder.dimensions
        self._pooler = Pooler(folder.modules, body)
        self._skips_prompts = not self._pooler.pooling.includes_prompt

    def fill(self, computed: Computed, rows: Sequence[Row], wanted: frozenset[str]) -> None:
        """See Head."""
        sizes = None
        if self._skips_prompts:
            sizes = [self._prompt_size(row) for row in rows]
        vectors = self._body.on_host(self._pooler(computed, sizes))
        for row, vector in zip(rows, vectors, strict=True):
            row.results[EMBEDDING] = self._finished(vector, row)
        if TOKEN_EMBEDDINGS in wanted and computed.values.ndim == 3:
            tokens = self._body.on_host(computed.values)
            for row, each in zip(rows, tokens, strict=True):
                row.results[TOKEN_EMBEDDINGS] = each[: len(row.ids)]

    def _prompt_size(self, row: Row) -> int:
        prompt = row.options.prompt
        # No prompt is put before ids that the caller has made.
        return self._tokenizer.prompt_size(prompt) if prompt and row.encoding is not None else 0

    def _finished(self, vector: np.ndarray, row: Row) -> np.ndarray:
        options = row.options
        normalizes = self._pooler.normalizes if options.normalize is None else options.normalize
        if normalizes:
            vector = _unit(vector)
        if self._dimensions is not None and self._dimensions < len(vector):
            vector = vector[: self._dimensions]
            # What a request asks for comes after the folder's cut, what a module does before it.
            vector = _unit(vector) if options.normalize else vector
        if options.dimensions is not None and options.dimensions < len(vector):
            vector = vector[: options.dimensions]
            vector = _unit(vector) if normalizes else vector
        return vector


def _unit(vector: np.ndarray) -> np.ndarray:
    length = max(float(np.sqrt(vector @ vector)), _SMALLEST)
    unit: np.ndarray = vector / np.float32(length)
    return unit


class LabelHead:
    """Scores of labels, for one text or a pair."""

    def __init__(self, folder: Folder, body: Body) -> None:
        self._body = body
        self._activation = folder.activation
        self._labels = [label.encode() for label in folder.labels]
        self._has_label = folder.task is Task.CLASSIFY

    def fill(self, computed: Computed, rows: Sequence[Row], wanted: frozenset[str]) -> None:  # noqa: ARG002
        """See Head."""
        logits = self._body.on_host(computed.values)
        scores = activated(logits, self._activation)
        for row, given, score in zip(rows, logits, scores, strict=True):
            row.results[LOGITS] = given
            row.results[SCORES] = score
            if self._has_label:
                row.results[LABEL] = _text(self._labels[int(score.argmax())])


class TokenHead:
    """A label for each token, and the entities that they make."""

    def __init__(self, folder: Folder, body: Body, tokenizer: FolderTokenizer) -> None:
        self._body = body
        self._labels = folder.labels
        self._tokenizer = tokenizer

    def fill(self, computed: Computed, rows: Sequence[Row], wanted: frozenset[str]) -> None:  # noqa: ARG002
        """See Head."""
        logits = self._body.on_host(computed.values)
        for row, padded in zip(rows, logits, strict=True):
            given = padded[: len(row.ids)]
            row.results[LOGITS] = given
            scores = activated(given, "softmax")
            row.results[ENTITIES] = json_text(
                entities_of(row, scores, self._labels, self._tokenizer)
            )


def json_text(document: Any) -> np.ndarray:
    """One text, as an output has it."""
    return _text(orjson.dumps(document))


def _text(text: bytes) -> np.ndarray:
    return np.array([text], dtype=object)
