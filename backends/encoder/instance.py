"""Runs batches of texts through an encoder: read, tokenised, computed alike lengths together."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from trivet.backends.api import Batch, CheckedRequest, InvalidRequest, Tensor
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.encoder.budget import groups_of
from trivet.backends.encoder.computing import Body, Padded
from trivet.backends.encoder.folder import Folder
from trivet.backends.encoder.heads import NUM_TOKENS, ON_DEMAND, TOKENS, Head, json_text
from trivet.backends.encoder.lengths import IDS, PAIR, TEXT, TextLengths
from trivet.backends.encoder.options import read_options
from trivet.backends.encoder.tokens import BYTES_OF_TOKEN, FolderTokenizer, Row


class EncoderInstance:
    """One instance. `length_of` is called on the event loop, all else by the instance's thread."""

    def __init__(
        self,
        folder: Folder,
        info: EncoderInfo,
        tokenizer: FolderTokenizer,
        body: Body,
        head: Head,
    ) -> None:
        self._folder = folder
        self._info = info
        self._tokenizer = tokenizer
        self._body: Body | None = body
        self._head = head
        padding_id = folder.config.get("pad_token_id")
        self._padding_id = padding_id if isinstance(padding_id, int) and padding_id >= 0 else 0
        self._lengths = TextLengths(info)

    # -- for the scheduler ---------------------------------------------------------------------

    @property
    def length_budget(self) -> int:
        """See CostsByLength."""
        return self._lengths.budget

    def length_of(self, request: CheckedRequest) -> int:
        """See CostsByLength."""
        return self._lengths.of(request)

    # -- Instance ------------------------------------------------------------------------------

    def execute(self, batch: Batch) -> None:
        """See Instance. A request that is wrong fails alone."""
        rows = self._read(batch)
        wanted = ON_DEMAND & {name for each in batch.requests for name in each.output_names}
        self._tokenise(batch, rows, wanted)
        batch.mark_gathered()
        self._compute(batch, [row for row in rows if row.request not in batch.errors], wanted)
        batch.mark_computed()
        by_request: list[list[Row]] = [[] for _ in batch.requests]
        for row in rows:
            by_request[row.request].append(row)
        for index, own in enumerate(by_request):
            request = batch.requests[index]
            if index in batch.errors or request.cancel.cancelled:
                continue
            if not _only_tokens(request):
                batch.read_tokens(index, sum(len(row.ids) for row in own))
            batch.respond(index, _outputs(request, own))
        self._lengths.learn(batch)

    def is_ready(self) -> bool:
        """See Instance."""
        return self._body is not None

    def close(self) -> None:
        """See Instance."""
        self._body = None

    # ------------------------------------------------------------------------------------------

    def _read(self, batch: Batch) -> list[Row]:
        rows: list[Row] = []
        for index, request in enumerate(batch.requests):
            try:
                rows += self._rows(index, request)
            except InvalidRequest as error:
                batch.fail(index, error)
        return rows

    def _rows(self, index: int, request: CheckedRequest) -> list[Row]:
        """Raises InvalidRequest."""
        options = read_options(request.parameters, self._info, self._folder.prompts)
        inputs = request.inputs
        if (IDS in inputs) == (TEXT in inputs):
            raise InvalidRequest(f"model '{request.model_name}' takes either {TEXT} or {IDS}")
        if IDS in inputs:
            given = inputs[IDS].numpy()
            self._check_ids(given, options.max_tokens)
            return [Row(index, options, ids=ids.tolist()) for ids in given]
        texts = [self._text(value, TEXT) for value in inputs[TEXT].numpy().ravel()]
        if PAIR not in inputs:
            return [Row(index, options, text) for text in texts]
        pairs = [self._text(value, PAIR) for value in inputs[PAIR].numpy().ravel()]
        return [Row(index, options, *both) for both in zip(texts, pairs, strict=True)]

    def _text(self, value: bytes | str, name: str) -> str:
        limit = self._info.max_text_bytes
        given = value.encode() if isinstance(value, str) else bytes(value)
        if len(given) > limit:
            raise InvalidRequest(
                f"{name}: {len(given)} bytes are more than the {limit} that the model takes (its "
                "parameter max_text_bytes)"
            )
        try:
            return given.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{name}: it is not UTF-8 (byte {error.start})") from None

    def _check_ids(self, ids: np.ndarray, limit: int) -> None:
        if not 1 <= ids.shape[-1] <= limit:
            raise InvalidRequest(
                f"{IDS}: {ids.shape[-1]} token ids; 1 to {limit} may be (max_tokens)"
            )
        size = self._info.vocabulary_size
        if ids.min() < 0 or ids.max() >= size:
            wrong = int(ids.min() if ids.min() < 0 else ids.max())
            raise InvalidRequest(f"{IDS}: {wrong} is not in the vocabulary of {size}")

    def _tokenise(self, batch: Batch, rows: Sequence[Row], wanted: frozenset[str]) -> None:
        texts = [row for row in rows if not row.ids]
        if not texts:
            return
        with_places = TOKENS in wanted or not self._info.dimensions
        errors = self._tokenizer.encode(texts, with_places=with_places)
        for index, error in errors.items():
            batch.fail(index, error)

    def _compute(self, batch: Batch, rows: Sequence[Row], wanted: frozenset[str]) -> None:
        body = self._body
        assert body is not None, "executed after close"
        needed = [row for row in rows if not _only_tokens(batch.requests[row.request])]
        if TOKENS in wanted:
            for row in rows:
                if row.encoding is not None and _names(batch.requests[row.request], TOKENS):
                    row.results[TOKENS] = json_text(self._tokenizer.document(row))
        for group in groups_of([len(row.ids) for row in needed], self._info.batch_tokens):
            chosen = [needed[index] for index in group]
            chosen = [row for row in chosen if not batch.requests[row.request].cancel.cancelled]
            if chosen:
                ids, types = [row.ids for row in chosen], [row.type_ids for row in chosen]
                padded = Padded.of(ids, types, self._padding_id)
                body.turns.take(partial(self._fill, body, padded, chosen, wanted))

    def _fill(
        self, body: Body, padded: Padded, rows: Sequence[Row], wanted: frozenset[str]
    ) -> None:
        self._head.fill(body.compute(padded), rows, wanted)


def most_text_bytes(max_tokens: int) -> int:
    """Of a text, where the config does not say."""
    return max(max_tokens * BYTES_OF_TOKEN, 1 << 20)


def _names(request: CheckedRequest, output: str) -> bool:
    return output in request.output_names


def _only_tokens(request: CheckedRequest) -> bool:
    """Whether it asks for no more than what the tokenizer gives."""
    return bool(request.output_names) and set(request.output_names) <= {TOKENS, NUM_TOKENS}


def _outputs(request: CheckedRequest, rows: Sequence[Row]) -> list[Tensor]:
    counts = np.array([[len(row.ids)] for row in rows], dtype=np.int32)
    given = [name for name in rows[0].results if name not in ON_DEMAND or _names(request, name)]
    results = [Tensor.of(name, _stacked([row.results[name] for row in rows])) for name in given]
    return [Tensor.of(NUM_TOKENS, counts), *results]


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """[rows, ...], with zeros behind rows that are shorter than others."""
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts) if len(parts) > 1 else parts[0][None]
    shape = (len(parts), max(len(part) for part in parts), *parts[0].shape[1:])
    whole = np.zeros(shape, parts[0].dtype)
    for row, part in enumerate(parts):
        whole[row, : len(part)] = part
    return whole
