"""What there is: server, models, their configs and statistics."""

from aiohttp import web

from trivet.backends.api import to_json_dict
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Descriptions
from trivet.server.http.answers import json_answer
from trivet.server.http.operations import Operation
from trivet.server.http.routes import Call, Route

_VERSIONED = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_SERVER = Operation("models", "Name, version and extensions of the server")
_AGAIN = Operation("models", "The same")
_MODELS = Operation("models", "Names of the models that serve")
_ALL_STATISTICS = Operation("models", "What all models have done")
_MODEL = Operation("models", "Tensors of a model")
_CONFIG = Operation("models", "The config that a model runs with")
_STATISTICS = Operation("models", "What a model has done")


class Metadata:
    """The handlers that only look."""

    def __init__(self, core: Descriptions) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        stats = self.statistics
        # "/v2/models/stats" comes before the model of that name.
        rows = [
            Route("GET", "/v2", self.server, Scope.ANY, Api.METADATA, _SERVER),
            Route("GET", "/v2/", self.server, Scope.ANY, Api.METADATA, _AGAIN),
            Route("GET", "/v2/models", self.models, Scope.ANY, Api.METADATA, _MODELS),
            Route("GET", "/v2/models/stats", stats, Scope.ANY, Api.STATISTICS, _ALL_STATISTICS),
        ]
        for path in _VERSIONED:
            rows += [
                Route("GET", path, self.model, Scope.ANY, Api.METADATA, _MODEL),
                Route("GET", f"{path}/config", self.config, Scope.ANY, Api.MODEL_CONFIG, _CONFIG),
                Route("GET", f"{path}/stats", stats, Scope.ANY, Api.STATISTICS, _STATISTICS),
            ]
        return rows

    async def server(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        metadata = self._core.server_metadata()
        return json_answer(
            {
                "name": metadata.name,
                "version": metadata.version,
                "extensions": list(metadata.extensions),
            }
        )

    async def models(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The names of all models that serve."""
        index = self._core.index(ready_only=True)
        return json_answer({"models": list(dict.fromkeys(row.name for row in index))})

    async def model(self, call: Call) -> web.StreamResponse:
        metadata = self._core.model_metadata(call.model, call.version)
        return json_answer(
            {
                "name": metadata.name,
                "versions": list(metadata.versions),
                "platform": metadata.platform,
                "inputs": [_tensor(tensor) for tensor in metadata.inputs],
                "outputs": [_tensor(tensor) for tensor in metadata.outputs],
            }
        )

    async def config(self, call: Call) -> web.StreamResponse:
        return json_answer(to_json_dict(self._core.model_config(call.model, call.version)))

    async def statistics(self, call: Call) -> web.StreamResponse:
        return json_answer(to_json_dict(self._core.statistics(call.model, call.version)))


def _tensor(metadata: pb.ModelMetadataResponse.TensorMetadata) -> dict[str, object]:
    return {
        "name": metadata.name,
        "datatype": metadata.datatype,
        "shape": list(metadata.shape),
    }
