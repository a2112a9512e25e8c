"""Many texts through a model: in requests of texts that are alike in length, a few at a time."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trivet.backends.api import (
    InferRequest,
    InvalidRequest,
    Parameters,
    RequestContext,
    ServingError,
    Tensor,
)
from trivet.backends.api.encoder import EncoderInfo
from trivet.server.core import Inference, Payer
from trivet.server.http.encoding.chosen import Chosen
from trivet.server.http.sinks import SingleSink

MAX_ITEMS = 2048
"""Texts or pairs of one request: the bound of those who read requests."""
_AT_A_TIME = 8
"""Requests that wait or are computed for one client: others have their turn between them."""
_MOST_ROWS = 64
_CHARACTERS_A_TOKEN = 3
_RAGGED = ("token_embeddings", "logits")
"""Outputs that may have a row for each token."""

Values = dict[str, Any]
"""One item's outputs, by name."""


@dataclass(frozen=True, slots=True)
class Item:
    """A text, a pair of texts, or token ids."""

    text: str = ""
    pair: str | None = None
    ids: tuple[int, ...] = ()

    @property
    def shape(self) -> int:
        """Only items that are equal in it can be rows of a tensor."""
        return len(self.ids) or -(self.pair is None)

    @property
    def length(self) -> int:
        """In characters, or in as many as tokens would have."""
        return len(self.ids) * _CHARACTERS_A_TOKEN or len(self.text) + len(self.pair or "")


@dataclass(frozen=True, slots=True)
class Question:
    """What is wanted of each item."""

    outputs: tuple[str, ...]
    parameters: Parameters = field(default_factory=dict)
    priority: int = 0


async def ask(
    core: Inference, request_id: str, chosen: Chosen, items: Sequence[Item], question: Question
) -> list[Values]:
    """The outputs of the items, of which there is one at least, in their order, and `num_tokens` of
    each. Raises a ServingError."""
    results: list[Values] = [{} for _ in items]
    payer = core.account()

    async def part(indices: Sequence[int]) -> None:
        request = _request(request_id, chosen, [items[i] for i in indices], question)
        found = await _infer(core, chosen, request, payer)
        for index, values in zip(indices, found, strict=True):
            results[index] = values

    most = min(_MOST_ROWS, chosen.admitted.model.signature.max_batch_size or 1)
    parts = list(_parts(items, chosen.info, most))
    if len(parts) == 1:
        await part(parts[0])
        return results
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def in_turn(indices: Sequence[int]) -> None:
        async with turns:
            await part(indices)

    try:
        async with asyncio.TaskGroup() as group:
            for indices in parts:
                group.create_task(in_turn(indices))
    except ExceptionGroup as errors:
        raise _first(errors) from None
    return results


def _first(errors: ExceptionGroup) -> Exception:
    """The request's error: the others are alike, or come of its end."""
    matching, rest = errors.split(ServingError)
    found = matching if matching is not None else rest
    assert found is not None, "a group has at least one"
    return found.exceptions[0]


def _parts(items: Sequence[Item], info: EncoderInfo, most: int) -> Iterator[list[int]]:
    """Indices of items that go as one request: `most` of one shape, the longest first."""
    order = sorted(range(len(items)), key=lambda index: (items[index].shape, -items[index].length))
    room = info.batch_tokens * _CHARACTERS_A_TOKEN
    part: list[int] = []
    for index in order:
        first = items[part[0]] if part else items[index]
        size = max(1, min(most, room // max(1, first.length)))
        if len(part) == size or first.shape != items[index].shape:
            yield part
            part = []
        part.append(index)
    yield part


def _request(
    request_id: str, chosen: Chosen, items: Sequence[Item], question: Question
) -> InferRequest:
    outputs = ("num_tokens", *question.outputs)
    tensors, parameters = _tensors(items), question.parameters
    return InferRequest(
        chosen.name, None, request_id, tensors, outputs, parameters, question.priority
    )


async def _infer(
    core: Inference, chosen: Chosen, request: InferRequest, payer: Payer | None
) -> list[Values]:
    sink, context = SingleSink(), RequestContext(on_tokens=payer)
    core.infer(chosen.admitted, request, context, sink)
    wrong = f"model '{chosen.name}' must give one response"
    response = await sink.result(context.cancel, wrong)
    arrays = {tensor.name: tensor.numpy() for tensor in response.outputs}
    counts = arrays["num_tokens"][:, 0].tolist()
    names = request.output_names[1:]
    return [
        {"num_tokens": count, **{name: _row(name, arrays[name][row], count) for name in names}}
        for row, count in enumerate(counts)
    ]


def _row(name: str, values: np.ndarray, num_tokens: int) -> Any:
    if name in _RAGGED and values.ndim == 2:
        return values[:num_tokens]
    return values


def _tensors(items: Sequence[Item]) -> dict[str, Tensor]:
    if items[0].ids:
        return {"input_ids": Tensor.of("input_ids", _array([item.ids for item in items]))}
    tensors = {"text": _texts("text", [item.text for item in items])}
    if items[0].pair is not None:
        tensors["text_pair"] = _texts("text_pair", [item.pair or "" for item in items])
    return tensors


def _array(ids: list[tuple[int, ...]]) -> np.ndarray:
    try:
        return np.array(ids, dtype=np.int64)
    except OverflowError:
        # JSON's integers reach to 2**64; a model says of smaller ones that it does not know them.
        wrong = max(max(row) for row in ids)
        raise InvalidRequest(f"input_ids: {wrong} is no token of any model") from None


def _texts(name: str, texts: Sequence[str]) -> Tensor:
    values = np.empty((len(texts), 1), dtype=object)
    values[:, 0] = [text.encode() for text in texts]
    return Tensor.of(name, values)
