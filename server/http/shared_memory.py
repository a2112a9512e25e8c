"""The shared memory extensions: system regions, and those on GPUs."""

import base64
from dataclasses import asdict

from aiohttp import web

from trivet.backends.api import InvalidRequest
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Inference
from trivet.server.http.answers import empty_answer, json_answer
from trivet.server.http.body import read_body
from trivet.server.http.json_document import parse_object
from trivet.server.http.json_fields import integer, required
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import ARRAY, Operation
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call, Route

_SYSTEM, _CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
_REGIONS = Operation("shared memory", "System regions", answer=ARRAY)
_CUDA_REGIONS = Operation("shared memory", "CUDA regions", answer=ARRAY)
_ONE = Operation("shared memory", "One of them", answer=ARRAY)
_REGISTER = Operation("shared memory", "Register it", "v2_fields:RegionBody", None)
_CUDA_REGISTER = Operation("shared memory", "Register it", answer=None)
_FORGET = Operation("shared memory", "Forget it", answer=None)
_FORGET_ALL = Operation("shared memory", "Forget all", answer=None)


class SharedMemoryRoutes:
    """The handlers that register and list regions."""

    def __init__(self, core: Inference, limits: HttpLimits) -> None:
        self._memory = core.shared_memory
        self._limits = limits

    def routes(self) -> list[Route]:
        admin, api = Scope.ADMIN, Api.SHARED_MEMORY
        one, cuda = f"{_SYSTEM}/region/{{region}}", f"{_CUDA}/region/{{region}}"
        forget, cuda_forget = self.unregister, self.cuda_unregister
        return [
            Route("GET", f"{_SYSTEM}/status", self.status, admin, api, _REGIONS),
            Route("GET", f"{one}/status", self.status, admin, api, _ONE),
            Route("POST", f"{one}/register", self.register, admin, api, _REGISTER),
            Route("POST", f"{one}/unregister", forget, admin, api, _FORGET),
            Route("POST", f"{_SYSTEM}/unregister", forget, admin, api, _FORGET_ALL),
            Route("GET", f"{_CUDA}/status", self.cuda_status, admin, api, _CUDA_REGIONS),
            Route("GET", f"{cuda}/status", self.cuda_status, admin, api, _ONE),
            Route("POST", f"{cuda}/register", self.cuda_register, admin, api, _CUDA_REGISTER),
            Route("POST", f"{cuda}/unregister", cuda_forget, admin, api, _FORGET),
            Route("POST", f"{_CUDA}/unregister", cuda_forget, admin, api, _FORGET_ALL),
        ]

    async def status(self, call: Call) -> web.StreamResponse:
        regions = self._memory.status(call.region or None)
        return json_answer([asdict(region) for region in regions])

    async def register(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        body = await read_body(call.request, self._limits)
        document = parse_object(bytes(body), self._limits.json)
        where = f"the registration of shared memory region '{call.region}'"
        key = required(document, "key", where)
        if not isinstance(key, str):
            raise InvalidRequest(f"'key' of {where} must be a string")
        byte_size = integer(required(document, "byte_size", where), f"'byte_size' of {where}")
        offset = integer(document.get("offset", 0), f"'offset' of {where}")
        self._memory.register(call.region, key, offset, byte_size)
        return empty_answer()

    async def unregister(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        self._memory.unregister(call.region or None)
        return empty_answer()

    async def cuda_status(self, call: Call) -> web.StreamResponse:
        regions = self._memory.cuda_status(call.region or None)
        return json_answer([asdict(region) for region in regions])

    async def cuda_register(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        body = await read_body(call.request, self._limits)
        document = parse_object(bytes(body), self._limits.json)
        where = f"the registration of CUDA shared memory region '{call.region}'"
        raw_handle = _handle(required(document, "raw_handle", where), where)
        device_id = integer(required(document, "device_id", where), f"'device_id' of {where}")
        byte_size = integer(required(document, "byte_size", where), f"'byte_size' of {where}")
        self._memory.register_cuda(call.region, raw_handle, device_id, byte_size)
        return empty_answer()

    async def cuda_unregister(self, call: Call) -> web.StreamResponse:
        refuse_other_sites(call)
        self._memory.unregister_cuda(call.region or None)
        return empty_answer()


def _handle(given: object, where: str) -> bytes:
    """`{"b64": "..."}`. Raises InvalidRequest."""
    text = given.get("b64") if isinstance(given, dict) else None
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise InvalidRequest(f"'raw_handle' of {where} must be an object with base64 text in 'b64'")
