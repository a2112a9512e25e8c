"""Which model a request for vectors, labels or scores means."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from trivet.backends.api import InvalidRequest, ModelNotFound, ModelNotReady
from trivet.backends.api.encoder import EncoderInfo, Task
from trivet.server.core import Encoders, Inference
from trivet.server.http.openai.prompts import PLACEHOLDERS
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import Call
from trivet.server.models.routing import Admitted

_MAKES = {
    Task.EMBED: "makes embeddings",
    Task.CLASSIFY: "classifies texts",
    Task.SCORE: "scores pairs of texts",
    Task.TOKENS: "labels tokens",
}


class EncodingCore(Inference, Encoders, Protocol):
    """What these APIs need of the core."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model that reads texts."""

    admitted: Admitted
    info: EncoderInfo

    @property
    def name(self) -> str:
        """The model's."""
        return self.admitted.name


def choose(core: EncodingCore, named: str | None, call: Call, tasks: Collection[Task]) -> Chosen:
    """The model of that name, or the only one that does one of the tasks.

    Raises InvalidRequest where several do and none is named, or the named one does another task;
    ModelNotFound, ModelNotReady.
    """
    name = named or ""
    if not name or (name in PLACEHOLDERS and name not in core.encoders()):
        name = _only(core, tasks)
    found = named_encoder(core, name, call)
    if found is None:
        raise ModelNotFound(f"model: `{name[:128]}` reads no texts")
    if found.info.task not in tasks:
        wanted = " or ".join(_MAKES[task] for task in tasks)
        raise InvalidRequest(
            f"model: `{name[:128]}` {_MAKES[found.info.task]}; a model that {wanted} is needed here"
        )
    return found


def named_encoder(core: Inference, name: str, call: Call) -> Chosen | None:
    """The model of that name; None for one of another kind. Raises ModelNotFound, ModelNotReady."""
    try:
        admitted = core.resolve(name, call.version, RequestIds.given(call.request.headers), call)
    except ModelNotFound:
        raise ModelNotFound(f"The model `{name[:128]}` does not exist.") from None
    call.chose(admitted)
    info = EncoderInfo.of(admitted.model.config)
    return None if info is None else Chosen(admitted, info)


def _only(core: Encoders, tasks: Collection[Task]) -> str:
    found = sorted(name for name, info in core.encoders().items() if info.task in tasks)
    wanted = " or ".join(_MAKES[task] for task in tasks)
    if not found:
        raise ModelNotReady(f"no model that {wanted} is ready")
    if len(found) > 1:
        raise InvalidRequest(
            f"model: {len(found)} models are here of which each {wanted} ({', '.join(found)}); "
            "name one in the field or header 'model'"
        )
    return found[0]
