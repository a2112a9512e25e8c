"""POST /embed, /embed_all, /predict, /rerank, /similarity and /: texts in, numbers out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from trivet.backends.api import InvalidRequest, ServingError, Unsupported
from trivet.backends.api.encoder import Task
from trivet.server.http.answers import Answer
from trivet.server.http.body import Body
from trivet.server.http.encoding.asking import Item, Question, Values, ask
from trivet.server.http.encoding.chosen import Chosen, EncodingCore, choose
from trivet.server.http.encoding.scoring import SCORING, ranked, score
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.routes import Call
from trivet.server.http.tei.errors import refusal
from trivet.server.http.tei.fields import (
    AnyFields,
    EmbedFields,
    PredictFields,
    RerankFields,
    SimilarityFields,
    parse,
    texts_of,
)
from trivet.server.http.tei.pipelines import entities_answer, labels_answer, scored_labels

LABELLING = (Task.CLASSIFY, Task.SCORE)


@dataclass(frozen=True, slots=True)
class _Effort:
    """What an answer's headers tell."""

    started_s: float
    num_characters: int
    num_tokens: int

    def headers(self) -> dict[str, str]:
        """TEI's; times in milliseconds, but for the one in seconds."""
        elapsed_s = time.monotonic() - self.started_s
        milliseconds = str(round(elapsed_s * 1000))
        return {
            "x-compute-characters": str(self.num_characters),
            "x-compute-tokens": str(self.num_tokens),
            "x-compute-time": f"{elapsed_s:.6f}",
            "x-total-time": milliseconds,
            "x-inference-time": milliseconds,
        }


class TeiTexts:
    """The handlers."""

    def __init__(self, core: EncodingCore, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    # -- vectors -------------------------------------------------------------------------------

    async def embed(self, call: Call) -> web.StreamResponse:
        """A vector for each text."""
        return await self._embed(call, await self._body(call))

    async def embed_all(self, call: Call) -> web.StreamResponse:
        """A vector for each token of each text."""
        started_s = time.monotonic()
        fields: EmbedFields = parse(EmbedFields, await self._body(call))
        chosen = self._choose(call, fields.model, Task.EMBED)
        items, output = fields.items(), "token_embeddings"
        found = await self._ask(call, chosen, items, fields.question(output))
        return _answer(started_s, items, found, [values[output] for values in found])

    async def _embed(self, call: Call, body: Body) -> web.StreamResponse:
        started_s = time.monotonic()
        fields: EmbedFields = parse(EmbedFields, body)
        chosen = self._choose(call, fields.model, Task.EMBED)
        items = fields.items()
        question = fields.question(
            "embedding", normalize=fields.normalize, dimensions=fields.dimensions
        )
        found = await self._ask(call, chosen, items, question)
        return _answer(started_s, items, found, [values["embedding"] for values in found])

    async def similarity(self, call: Call) -> web.StreamResponse:
        """How alike a sentence is to others."""
        return await self._similarity(call, await self._body(call))

    async def _similarity(self, call: Call, body: Body) -> web.StreamResponse:
        started_s = time.monotonic()
        fields: SimilarityFields = parse(SimilarityFields, body)
        chosen = self._choose(call, fields.model, Task.EMBED)
        source = fields.inputs.source_sentence
        others = texts_of(fields.inputs.sentences, "inputs.sentences")
        pairs = [(source, other) for other in others]
        scored = await score(self._core, call.request_id, chosen, pairs, fields.question())
        num_characters = len(source) + sum(map(len, others))
        return _written(_Effort(started_s, num_characters, scored.num_tokens), scored.scores)

    # -- labels and scores ---------------------------------------------------------------------

    async def predict(self, call: Call) -> web.StreamResponse:
        """The labels of texts or pairs with their scores, the best first."""
        body = await self._body(call)
        fields: PredictFields = parse(PredictFields, body)
        return await self._predict(call, fields)

    async def _predict(self, call: Call, fields: PredictFields) -> web.StreamResponse:
        started_s = time.monotonic()
        chosen = self._choose(call, fields.model, *LABELLING)
        items = fields.items()
        output = "logits" if fields.raw_scores else "scores"
        found = await self._ask(call, chosen, items, fields.question(output))
        labels = chosen.info.labels
        predictions = [scored_labels(labels, values[output]) for values in found]
        document: Any = predictions[0] if fields.is_single else predictions
        return _answer(started_s, items, found, document)

    async def rerank(self, call: Call, body: Body) -> web.StreamResponse | None:
        """Answers a body sent to /rerank if it is of this API: if it has `texts`. None: it is not;
        the path is shared."""
        if not _has_field(body, "texts"):
            return None
        try:
            return await self._rerank(call, body)
        except ServingError as error:
            return refusal(error)

    async def _rerank(self, call: Call, body: Body) -> web.StreamResponse:
        started_s = time.monotonic()
        fields: RerankFields = parse(RerankFields, body)
        chosen = self._choose(call, fields.model, *SCORING)
        texts = texts_of(fields.texts, "texts")
        pairs = [(fields.query, text) for text in texts]
        question, raw = fields.question(), fields.raw_scores
        scored = await score(self._core, call.request_id, chosen, pairs, question, raw=raw)
        ranks: list[dict[str, Any]] = [
            {"index": index, "score": scored.scores[index]} for index in ranked(scored.scores)
        ]
        if fields.return_text:
            for rank in ranks:
                rank["text"] = texts[rank["index"]]
        num_characters = len(fields.query) * len(texts) + sum(map(len, texts))
        return _written(_Effort(started_s, num_characters, scored.num_tokens), ranks)

    # -- POST / --------------------------------------------------------------------------------

    async def root(self, call: Call, body: Body) -> web.StreamResponse:
        """What the model's own route would answer; or, where there is a field `parameters`, what a
        pipeline of Hugging Face does."""
        fields: AnyFields = parse(AnyFields, body)
        if isinstance(fields.inputs, dict):
            return await self._similarity(call, body)
        if fields.query is not None:
            return await self._rerank(call, body)
        chosen = self._choose(call, fields.model, *Task)
        if chosen.info.task is Task.EMBED:
            return await self._embed(call, body)
        if chosen.info.task is Task.TOKENS:
            return await self._entities(call, chosen, fields)
        predicted: PredictFields = parse(PredictFields, body)
        if predicted.parameters is None:
            return await self._predict(call, predicted)
        return await self._labels(call, chosen, predicted)

    async def _labels(
        self, call: Call, chosen: Chosen, fields: PredictFields
    ) -> web.StreamResponse:
        started_s, items = time.monotonic(), fields.pipeline_items()
        found = await self._ask(call, chosen, items, fields.question("logits", truncate=True))
        logits = [values["logits"] for values in found]
        document = labels_answer(chosen.info, logits, fields.parameters or {})
        return _answer(started_s, items, found, document)

    async def _entities(self, call: Call, chosen: Chosen, fields: AnyFields) -> web.StreamResponse:
        started_s, given = time.monotonic(), fields.inputs
        if not isinstance(given, str | list) or not all(isinstance(each, str) for each in given):
            raise InvalidRequest("inputs: it must be a text or a list of texts")
        items = [Item(text) for text in texts_of(given)]
        parameters = fields.parameters or {}
        strategy = parameters.get("aggregation_strategy") or "simple"
        if not isinstance(strategy, str):
            raise InvalidRequest("parameters.aggregation_strategy: it must be a text")
        if parameters.get("stride"):
            raise Unsupported("stride: it is not offered here; send parts of the text")
        question = Question(("entities",), {"aggregation_strategy": strategy})
        found = await self._ask(call, chosen, items, question)
        document = entities_answer(found, parameters, is_single=isinstance(given, str))
        return _answer(started_s, items, found, document)

    # ------------------------------------------------------------------------------------------

    def _choose(self, call: Call, named: str | None, *tasks: Task) -> Chosen:
        name = named or call.request.headers.get("model")
        return choose(self._core, name, call, tasks)

    async def _ask(
        self, call: Call, chosen: Chosen, items: Sequence[Item], question: Question
    ) -> list[Values]:
        return await ask(self._core, call.request_id, chosen, items, question)

    async def _body(self, call: Call) -> bytes:
        return await read_json_body(call.request, self._limits)


def _has_field(body: Body, name: str) -> bool:
    if f'"{name}"'.encode() not in bytes(body):
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and name in document


def _answer(
    started_s: float, items: Sequence[Item], found: Sequence[Values], document: object
) -> Answer:
    num_characters = sum(len(item.text) + len(item.pair or "") for item in items)
    num_tokens = sum(values["num_tokens"] for values in found)
    return _written(_Effort(started_s, num_characters, num_tokens), document)


def _written(effort: _Effort, document: object) -> Answer:
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Answer((body,), extra_headers=effort.headers())
