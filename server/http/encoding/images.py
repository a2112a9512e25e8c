"""Which model a request with an image means, and asking it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trivet.backends.api import (
    InferRequest,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    RequestContext,
    Tensor,
)
from trivet.backends.api.image_classifier import IMAGE, ImageClassifierInfo
from trivet.server.core import ImageClassifiers, Inference
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import Call
from trivet.server.http.sinks import SingleSink
from trivet.server.models.routing import Admitted

_LOGITS = "logits"


class ImagingCore(Inference, ImageClassifiers, Protocol):
    """What these APIs need of the core."""


@dataclass(frozen=True, slots=True)
class ChosenClassifier:
    """A model that labels images."""

    admitted: Admitted
    info: ImageClassifierInfo


def choose_classifier(core: ImagingCore, named: str, call: Call) -> ChosenClassifier:
    """The model of that name, or the only one that labels images. Raises InvalidRequest where
    several do and none is named, ModelNotFound, ModelNotReady."""
    name = named or _only(core)
    try:
        admitted = core.resolve(name, call.version, RequestIds.given(call.request.headers), call)
    except ModelNotFound:
        raise ModelNotFound(f"The model `{name[:128]}` does not exist.") from None
    call.chose(admitted)
    info = ImageClassifierInfo.of(admitted.model.config)
    if info is None:
        raise ModelNotFound(f"model: `{name[:128]}` labels no images")
    return ChosenClassifier(admitted, info)


def _only(core: ImageClassifiers) -> str:
    found = sorted(core.image_classifiers())
    if not found:
        raise ModelNotReady("no model that labels images is ready")
    if len(found) > 1:
        raise InvalidRequest(
            f"model: {len(found)} models are here that label images ({', '.join(found)}); name one "
            "in the header 'model'"
        )
    return found[0]


async def logits_of(
    core: Inference, request_id: str, chosen: ChosenClassifier, images: Sequence[bytes]
) -> np.ndarray:
    """[images, labels]. Raises a ServingError."""
    data = np.empty((len(images), 1), dtype=object)
    data[:, 0] = images
    inputs = {IMAGE: Tensor.of(IMAGE, data)}
    name = chosen.admitted.name
    request = InferRequest(name, None, request_id, inputs, (_LOGITS,))
    sink, context = SingleSink(), RequestContext()
    core.infer(chosen.admitted, request, context, sink)
    response = await sink.result(context.cancel, f"model '{name}' must give one response")
    return response.outputs[0].numpy()
