"""The model repository extension: index, load and unload."""

import base64
from collections.abc import Iterator, Mapping

from aiohttp import web

from trivet.backends.api import InvalidRequest, Unsupported
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Core
from trivet.server.http.answers import empty_answer, json_answer
from trivet.server.http.body import read_body
from trivet.server.http.json_document import JsonObject, parse_object
from trivet.server.http.json_fields import flag, object_at
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import ARRAY, Operation
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call, Route
from trivet.server.protocol.loading import read_load

_INDEX = Operation(
    "repository", "All models and their states", "v2_fields:IndexBody", ARRAY, needs_body=False
)
_LOAD = Operation(
    "repository", "Load or reload a model", "v2_fields:LoadBody", None, needs_body=False
)
_UNLOAD = Operation("repository", "Unload a model", "v2_fields:UnloadBody", None, needs_body=False)


class Repository:
    """The handlers that change which models serve. The core checks names and the control mode."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    def routes(self) -> list[Route]:
        own, named = "/v2/repository/models/{model*}", "/v2/repository/{region}/models/{model}"
        other, api = self.named_repository, Api.MODEL_REPOSITORY
        return [
            Route("POST", "/v2/repository/index", self.index, Scope.ANY, api, _INDEX),
            Route("POST", f"{own}/load", self.load, Scope.ADMIN, api, _LOAD),
            Route("POST", f"{own}/unload", self.unload, Scope.ADMIN, api, _UNLOAD),
            Route("POST", "/v2/repository/{region}/index", other, Scope.ANY, api, _INDEX),
            Route("POST", f"{named}/load", other, Scope.ADMIN, api, _LOAD),
            Route("POST", f"{named}/unload", other, Scope.ADMIN, api, _UNLOAD),
        ]

    async def index(self, call: Call) -> web.StreamResponse:
        document = await self._document(call)
        ready_only = flag(document.get("ready", False), "'ready'")
        index = self._core.index(ready_only=ready_only)
        return json_answer([_entry(model) for model in index.models])

    async def load(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        parameters = object_at(await self._document(call), "parameters", "the request")
        given = read_load(call.model, parameters.items(), str)
        await self._core.load(call.model, given.config_json, SentFiles(call.model, given.files))
        return empty_answer()

    async def unload(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        parameters = object_at(await self._document(call), "parameters", "the request")
        for name in parameters:
            if name != "unload_dependents":
                raise InvalidRequest(
                    f"unrecognized unload parameter '{name[:64]}'; known is 'unload_dependents'"
                )
        dependents = flag(parameters.get("unload_dependents", False), "'unload_dependents'")
        await self._core.unload(call.model, unload_dependents=dependents)
        return empty_answer()

    async def named_repository(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        raise Unsupported(
            "'repository_name' specification is not supported; leave it out: the index and model "
            "names span all repositories"
        )

    async def _document(self, call: Call) -> JsonObject:
        body = await read_body(call.request, self._limits)
        return parse_object(bytes(body), self._limits.json) if body else {}


class SentFiles(Mapping[str, bytes]):
    """Files in base64, by path. Each is decoded when it is taken, and then kept: a server that
    takes no files decodes none, and one that does, decodes where it writes them down."""

    def __init__(self, model: str, texts: Mapping[str, str]) -> None:
        self._model = model
        self._texts = texts
        self._contents: dict[str, bytes] = {}

    def __getitem__(self, path: str) -> bytes:
        """Raises InvalidRequest for what is no base64."""
        if path not in self._contents:
            try:
                self._contents[path] = base64.b64decode(self._texts[path], validate=True)
            except ValueError:
                text = f"parameter 'file:{path[:59]}' is no base64"
                raise InvalidRequest(f"failed to load '{self._model[:255]}': {text}") from None
        return self._contents[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def _entry(model: pb.RepositoryIndexResponse.ModelIndex) -> dict[str, str]:
    """A row of the index; a model that was never loaded has nothing but its name."""
    entry = {"name": model.name}
    if model.version or model.state:
        entry |= {"version": model.version, "state": model.state, "reason": model.reason}
    return entry
