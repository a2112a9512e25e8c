"""POST / with an image: as Hugging Face's pipeline for image classification answers it."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from trivet.backends.api import InvalidRequest
from trivet.server.http.answers import Answer
from trivet.server.http.body import Body
from trivet.server.http.encoding.images import ImagingCore, choose_classifier, logits_of
from trivet.server.http.openai.fields import Fields, Listed
from trivet.server.http.routes import Call
from trivet.server.http.tei.errors import Empty, WrongImage
from trivet.server.http.tei.fields import parse
from trivet.server.http.tei.pipelines import labels_answer

MAX_IMAGES = 64
"""Of one request."""


class ImageFields(Fields):
    """The body where it is JSON: files as base64."""

    model: str | None = None
    inputs: str | Listed[str]
    parameters: dict[str, Any] | None = None

    def images(self) -> list[bytes]:
        """Raises Empty, InvalidRequest."""
        given = [self.inputs] if isinstance(self.inputs, str) else self.inputs
        if not given:
            raise Empty("`inputs` cannot be empty")
        if len(given) > MAX_IMAGES:
            raise InvalidRequest(f"inputs: {len(given)} images; {MAX_IMAGES} may be at most")
        return [_decoded(text) for text in given]


class Images:
    """The handlers."""

    def __init__(self, core: ImagingCore) -> None:
        self._core = core

    async def file(self, call: Call, body: bytes) -> web.StreamResponse:
        """The labels of the image that the body is, the best first."""
        found = await self._labels(call, "", [body], {})
        return _answer(found[0])

    async def document(self, call: Call, body: Body) -> web.StreamResponse:
        """The same of images in a JSON document, which may have parameters."""
        fields: ImageFields = parse(ImageFields, body)
        named, parameters = fields.model or "", fields.parameters or {}
        found = await self._labels(call, named, fields.images(), parameters)
        return _answer(found[0] if isinstance(fields.inputs, str) else found)

    async def _labels(
        self, call: Call, named: str, images: Sequence[bytes], parameters: Mapping[str, Any]
    ) -> list[list[dict[str, Any]]]:
        named = named or call.request.headers.get("model", "")
        chosen = choose_classifier(self._core, named, call)
        try:
            logits = await logits_of(self._core, call.request_id, chosen, images)
        except InvalidRequest as error:
            raise WrongImage(error.message) from None
        return labels_answer(chosen.info, logits, parameters)


def _decoded(text: str) -> bytes:
    """Of base64, or a data URL of it."""
    _, mark, after = text[:128].partition(";base64,")
    start = len(text[:128]) - len(after) if mark else 0
    try:
        return base64.b64decode(text[start:], validate=True)
    except (binascii.Error, ValueError):
        raise WrongImage("inputs: an image must be base64") from None


def _answer(document: object) -> Answer:
    return Answer((orjson.dumps(document),))
