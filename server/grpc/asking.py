"""Which version a request over gRPC gets."""

from trivet.backends.api import InferRequest
from trivet.server.core import Resolving
from trivet.server.grpc.transport import Call
from trivet.server.models.routing import Admitted
from trivet.server.models.traffic import given_in
from trivet.server.protocol.versions import HEADER, parse_version


def resolved(
    core: Resolving, request: InferRequest, call: Call, client: "MetadataClient"
) -> Admitted:
    """What it asks for, or else what its call's metadata names. The call says
    behind its answer what was chosen: a stream, for its last request. Raises a ServingError."""
    version = request.model_version
    if version is None and (named := call.metadata.get(HEADER)):
        version = parse_version(named)
    admitted = core.resolve(request.model_name, version, request.key, client)
    # Also where nothing is told yet: what it costs stands there by the end.
    call.tell(admitted.told)
    return admitted


class MetadataClient:
    """A Client."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def given(self, source: str) -> str | None:
        """In the call's metadata."""
        return given_in(self._call.metadata, source)
