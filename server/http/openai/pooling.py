"""POST /pooling, /classify, /score and /rerank: vLLM's forms over models that read texts."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from trivet.backends.api import Unsupported
from trivet.backends.api.encoder import Task
from trivet.server.http.answers import Answer
from trivet.server.http.body import Body
from trivet.server.http.encoding.asking import Values, ask
from trivet.server.http.encoding.chosen import Chosen, EncodingCore, choose
from trivet.server.http.encoding.scoring import SCORING, ranked, score
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.documents import new_id, now_s
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.pooling_fields import (
    ClassifyFields,
    PoolingFields,
    RerankFields,
    ScoreFields,
)
from trivet.server.http.routes import Call

OtherRerank = Callable[[Call, Body], Awaitable[web.StreamResponse | None]]
"""Another API's handler of /rerank; None: the body is not of that API."""
_OUTPUTS = {
    "embed": (Task.EMBED, "embedding"),
    "token_embed": (Task.EMBED, "token_embeddings"),
    "classify": (Task.CLASSIFY, "scores"),
    "score": (Task.SCORE, "scores"),
    "token_classify": (Task.TOKENS, "logits"),
}
"""By `task` of /pooling: what the model must do, and which output is meant."""
_USUAL = {task: name for name, (task, output) in _OUTPUTS.items() if output != "token_embeddings"}


class Pooling:
    """The handlers."""

    def __init__(self, core: EncodingCore, limits: HttpLimits, other_rerank: OtherRerank) -> None:
        self._core = core
        self._limits = limits
        self._other_rerank = other_rerank

    async def pool(self, call: Call) -> web.StreamResponse:
        """What the model makes of texts, whatever that is."""
        fields = parse(PoolingFields, await self._body(call))
        tasks = tuple(Task) if fields.task is None else (_OUTPUTS[fields.task][0],)
        call.user = fields.user or ""
        chosen = choose(self._core, fields.model, call, tasks)
        output = _OUTPUTS[fields.task or _USUAL[chosen.info.task]][1]
        if fields.dimensions is not None and output != "embedding":
            raise Unsupported("dimensions: it is offered for embeddings only")
        question = fields.question(output)
        if output == "embedding":
            question = fields.vector_question(output, fields.dimensions)
        found = await ask(self._core, call.request_id, chosen, fields.items(), question)
        data = [
            {"index": index, "object": "pooling", "data": _written(values[output], fields)}
            for index, values in enumerate(found)
        ]
        return _listed("pool", chosen, data, _num_tokens(found))

    async def classify(self, call: Call) -> web.StreamResponse:
        """The scores of each label, and the best one."""
        fields = parse(ClassifyFields, await self._body(call))
        call.user = fields.user or ""
        chosen = choose(self._core, fields.model, call, (Task.CLASSIFY, Task.SCORE))
        output = "logits" if fields.use_activation is False else "scores"
        question = fields.question(output)
        found = await ask(self._core, call.request_id, chosen, fields.items(), question)
        labels = chosen.info.labels
        data = [
            {
                "index": index,
                "label": labels[int(values[output].argmax())],
                "probs": values[output],
                "num_classes": len(labels),
            }
            for index, values in enumerate(found)
        ]
        return _listed("classify", chosen, data, _num_tokens(found))

    async def score(self, call: Call) -> web.StreamResponse:
        """One score for each pair."""
        fields = parse(ScoreFields, await self._body(call))
        call.user = fields.user or ""
        chosen = choose(self._core, fields.model, call, SCORING)
        raw = fields.use_activation is False
        pairs, question = fields.pairs(), fields.question()
        scored = await score(self._core, call.request_id, chosen, pairs, question, raw=raw)
        data = [
            {"index": index, "object": "score", "score": each}
            for index, each in enumerate(scored.scores)
        ]
        return _listed("score", chosen, data, scored.num_tokens)

    async def rerank(self, call: Call) -> web.StreamResponse:
        """Documents by how well they answer a query, the best first."""
        body = await self._body(call)
        other = await self._other_rerank(call, body)
        if other is not None:
            return other
        return await self._rank(call, body)

    async def cohere_rerank(self, call: Call) -> web.StreamResponse:
        """The same on a path that is Cohere's alone."""
        return await self._rank(call, await self._body(call))

    async def _rank(self, call: Call, body: bytes) -> web.StreamResponse:
        fields = parse(RerankFields, body)
        call.user = fields.user or ""
        chosen = choose(self._core, fields.model, call, SCORING)
        texts, question = fields.texts(), fields.question()
        pairs = [(fields.query, text) for text in texts]
        raw = fields.use_activation is False
        scored = await score(self._core, call.request_id, chosen, pairs, question, raw=raw)
        best = ranked(scored.scores)[: fields.top_n or len(texts)]
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": scored.scores[index]} for index in best
        ]
        if fields.return_documents is not False:
            for each in results:
                each["document"] = {"text": texts[each["index"]]}
        document = {
            "id": new_id("rerank", None),
            "model": chosen.name,
            "usage": _usage(scored.num_tokens),
            "results": results,
        }
        return numbers_answer(document)

    async def _body(self, call: Call) -> bytes:
        return await read_json_body(call.request, self._limits)


def numbers_answer(document: object) -> Answer:
    """An answer whose document has arrays of numbers in it, which are written as they are."""
    return Answer((orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),))


def _written(values: np.ndarray, fields: PoolingFields) -> Any:
    if fields.encoding_format == "float":
        return values
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _num_tokens(found: list[Values]) -> int:
    return sum(values["num_tokens"] for values in found)


def _usage(num_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def _listed(prefix: str, chosen: Chosen, data: list[dict[str, Any]], num_tokens: int) -> Answer:
    usage = {
        **_usage(num_tokens),
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }
    return numbers_answer(
        {
            "id": new_id(prefix, None),
            "object": "list",
            "created": now_s(),
            "model": chosen.name,
            "data": data,
            "usage": usage,
        }
    )
