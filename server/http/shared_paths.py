"""POST /, GET /info and POST /tokenize: the paths that TGI and TEI both have.

The model that is named tells which of them is meant; without a name it is TGI where a model
generates text."""

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from trivet.backends.api import ModelNotFound, ModelNotReady, NotFound, ServingError
from trivet.backends.api.encoder import EncoderInfo
from trivet.server.core import Core
from trivet.server.http.body import Body
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body, read_json_or_file
from trivet.server.http.openai.prompts import PLACEHOLDERS
from trivet.server.http.routes import Call, Handler
from trivet.server.http.tei.about import TeiAbout
from trivet.server.http.tei.errors import refusal
from trivet.server.http.tei.images import Images
from trivet.server.http.tei.texts import TeiTexts

Root = Callable[[Call, bytes], Awaitable[web.StreamResponse]]
Tokenize = Callable[[Call, Body], Awaitable[web.StreamResponse | None]]


class SharedPaths:
    """The handlers: TEI's where it is meant, else those that are given."""

    def __init__(self, core: Core, limits: HttpLimits, texts: TeiTexts, about: TeiAbout) -> None:
        self._core = core
        self._limits = limits
        self._texts = texts
        self._about = about
        self._images = Images(core)

    def root(self, other: Root) -> Handler:
        """POST /."""

        async def handle(call: Call) -> web.StreamResponse:
            if not self._core.image_classifiers():
                body = await read_json_body(call.request, self._limits)
                return await self._root(call, body, other)
            body, is_file = await read_json_or_file(call.request, self._limits)
            if is_file:
                return await answered(self._images.file(call, body))
            if self._labels_images(call, _model_in(body)):
                return await answered(self._images.document(call, body))
            return await self._root(call, body, other)

        return handle

    async def _root(self, call: Call, body: bytes, other: Root) -> web.StreamResponse:
        if not self._reads(call, _model_in(body)):
            return await other(call, body)
        return await answered(self._texts.root(call, body))

    def info(self, other: Handler) -> Handler:
        """GET /info."""

        async def handle(call: Call) -> web.StreamResponse:
            if not self._reads(call, ""):
                return await other(call)
            try:
                return self._about.info(call)
            except ServingError as error:
                return refusal(error)

        return handle

    def tokenize(self, other: Tokenize) -> Tokenize:
        """POST /tokenize, of a body with `inputs`; others are none of ours."""

        async def handle(call: Call, body: Body) -> web.StreamResponse | None:
            if b'"inputs"' not in bytes(body) or not self._reads(call, _model_in(body)):
                return await other(call, body)
            return await answered(self._about.tokenize(call, body))

        return handle

    def _labels_images(self, call: Call, named: str) -> bool:
        """Whether the model that is meant labels images; without a name, where none reads texts."""
        name = named or call.request.headers.get("model", "")
        if not name:
            return not (self._core.unnamed_generators() or self._core.encoders())
        return name in self._core.image_classifiers()

    def _reads(self, call: Call, named: str) -> bool:
        """Whether the model that is meant reads texts, and does not go on with them."""
        name = named or call.request.headers.get("model", "")
        if not name or (name in PLACEHOLDERS and name not in self._core.generators()):
            return not self._core.unnamed_generators() and bool(self._core.encoders())
        try:
            found = self._core.resolve(name, call.version, call.request_id, call)
        except (ModelNotFound, ModelNotReady, NotFound):
            return False
        return EncoderInfo.of(found.model.config) is not None


async def answered(answer: Awaitable[web.StreamResponse]) -> web.StreamResponse:
    """The answer, or TEI's form of its error."""
    try:
        return await answer
    except ServingError as error:
        return refusal(error)


def _model_in(body: Body) -> str:
    if b'"model"' not in bytes(body):
        return ""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    named = document.get("model") if isinstance(document, dict) else None
    return named if isinstance(named, str) else ""
