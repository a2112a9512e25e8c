"""Runs batches of image files through a classifier: decoded and preprocessed side by side, computed
together."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from trivet.backends.api import Batch, InvalidRequest, Tensor
from trivet.backends.api.encoder import activated
from trivet.backends.api.image_classifier import IMAGE, ImageClassifierInfo
from trivet.backends.hugging_face.image_decoding import Decoder
from trivet.backends.hugging_face.image_preprocessing import Pixels, Preprocessor
from trivet.backends.image_classifier.bodies import Body

SCORES, LABEL, LOGITS = "scores", "label", "logits"


@dataclass(slots=True, eq=False)
class _Row:
    """One image of a request."""

    request: int
    """Its index in the batch."""
    place: int
    """In the request."""
    data: bytes
    pixels: Pixels = field(default_factory=dict)
    """None of a request that has ended meanwhile."""
    logits: np.ndarray | None = None


class ImageClassifierInstance:
    """One instance. Owns the threads that decode; all else is its own thread's."""

    def __init__(
        self,
        info: ImageClassifierInfo,
        decoder: Decoder,
        preprocessor: Preprocessor,
        body: Body,
        num_threads: int,
    ) -> None:
        self._labels = np.array([label.encode() for label in info.labels], dtype=object)
        self._activation = info.activation
        self._decoder = decoder
        self._preprocessor = preprocessor
        self._body: Body | None = body
        self._decoders = ThreadPoolExecutor(max(1, num_threads), "decode")

    def execute(self, batch: Batch) -> None:
        """See Instance. A request with a file that is no image fails alone."""
        rows = [
            _Row(index, place, data)
            for index, request in enumerate(batch.requests)
            for place, data in enumerate(request.inputs[IMAGE].numpy().ravel())
        ]
        for row, error in zip(rows, self._prepare(batch, rows), strict=True):
            if error is not None and row.request not in batch.errors:
                batch.fail(row.request, error)
        batch.mark_gathered()
        live = [row for row in rows if row.pixels and row.request not in batch.errors]
        self._compute(live)
        batch.mark_computed()
        self._respond(batch, live)

    def is_ready(self) -> bool:
        """See Instance."""
        return self._body is not None

    def close(self) -> None:
        """See Instance."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._body = None

    # ------------------------------------------------------------------------------------------

    def _prepare(self, batch: Batch, rows: Sequence[_Row]) -> Sequence[InvalidRequest | None]:
        """Gives the rows their pixels; of each, why it has none."""
        prepare = partial(self._prepare_row, batch)
        if len(rows) == 1:
            return [prepare(rows[0])]
        return list(self._decoders.map(prepare, rows))

    def _prepare_row(self, batch: Batch, row: _Row) -> InvalidRequest | None:
        request = batch.requests[row.request]
        if request.cancel.cancelled:
            return None
        try:
            row.pixels = self._preprocessor(self._decoder(row.data))
        except InvalidRequest as error:
            return InvalidRequest(f"{IMAGE}[{row.place}]: {error.message}")
        return None

    def _compute(self, rows: Sequence[_Row]) -> None:
        """Gives the rows their logits. Not every processor makes all images one size."""
        body = self._body
        assert body is not None, "executed after close"
        groups: dict[object, list[_Row]] = {}
        for row in rows:
            shapes = tuple((name, values.shape) for name, values in row.pixels.items())
            groups.setdefault(shapes, []).append(row)
        for group in groups.values():
            joined = {
                name: np.concatenate([row.pixels[name] for row in group])
                for name in group[0].pixels
            }
            for row, logits in zip(group, body.compute(joined), strict=True):
                row.logits = logits

    def _respond(self, batch: Batch, rows: Sequence[_Row]) -> None:
        by_request: list[list[np.ndarray]] = [[] for _ in batch.requests]
        for row in rows:
            assert row.logits is not None, "computed above"
            by_request[row.request].append(row.logits)
        for index, own in enumerate(by_request):
            if own:
                given = np.stack(own)
                scores = activated(given, self._activation)
                best = self._labels[scores.argmax(axis=-1)][:, None]
                outputs = [Tensor.of(SCORES, scores), Tensor.of(LABEL, best)]
                if LOGITS in batch.requests[index].output_names:
                    outputs.append(Tensor.of(LOGITS, given))
                batch.respond(index, outputs)
