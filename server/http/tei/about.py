"""GET /info and POST /tokenize: what surrounds the computing."""

from typing import Any

import orjson
from aiohttp import web

from trivet import __version__
from trivet.backends.api.encoder import EncoderInfo, Task
from trivet.server.http.answers import Answer, json_answer
from trivet.server.http.body import Body
from trivet.server.http.encoding.asking import MAX_ITEMS, Item, Question, ask
from trivet.server.http.encoding.chosen import Chosen, EncodingCore, choose
from trivet.server.http.routes import Call
from trivet.server.http.tei.fields import TokenizeFields, parse, texts_of


class TeiAbout:
    """The handlers."""

    def __init__(self, core: EncodingCore) -> None:
        self._core = core

    def info(self, call: Call) -> web.StreamResponse:
        """The model and its limits."""
        name = call.request.headers.get("model")
        chosen = choose(self._core, name, call, tuple(Task))
        return json_answer(_info(chosen))

    async def tokenize(self, call: Call, body: Body) -> web.StreamResponse:
        """The tokens of each text."""
        fields: TokenizeFields = parse(TokenizeFields, body)
        name = fields.model or call.request.headers.get("model")
        chosen = choose(self._core, name, call, tuple(Task))
        items = [Item(text) for text in texts_of(fields.inputs)]
        given: dict[str, bool | str] = {"add_special_tokens": fields.add_special_tokens}
        if fields.prompt_name is not None:
            given["prompt_name"] = fields.prompt_name
        found = await ask(self._core, call.request_id, chosen, items, Question(("tokens",), given))
        lists = [orjson.Fragment(bytes(values["tokens"][0])) for values in found]
        return Answer((orjson.dumps(lists),))


def _info(chosen: Chosen) -> dict[str, Any]:
    info = chosen.info
    return {
        "model_id": chosen.name,
        "model_sha": None,
        "model_dtype": info.dtype,
        "served_model_name": chosen.name,
        "model_type": _model_type(info),
        "max_concurrent_requests": chosen.admitted.model.signature.max_batch_size,
        "max_input_length": info.max_tokens,
        "max_batch_tokens": info.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": MAX_ITEMS,
        "auto_truncate": info.truncates,
        # A default of TEI: its clients expect it, nothing here depends on it.
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _model_type(info: EncoderInfo) -> dict[str, Any]:
    if info.task is Task.EMBED:
        return {"embedding": {"pooling": info.pooling}}
    labels = {str(index): label for index, label in enumerate(info.labels)}
    named = {label: index for index, label in enumerate(info.labels)}
    kind = "reranker" if info.task is Task.SCORE else "classifier"
    return {kind: {"id2label": labels, "label2id": named}}
