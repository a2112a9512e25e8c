"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from trivet.server.core import AdapterControl
from trivet.server.http.answers import Answer
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.fields import Fields, parse
from trivet.server.http.origin import refuse_other_sites
from trivet.server.http.routes import Call

Name = Annotated[str, Field(min_length=1, max_length=512)]


class LoadAdapterFields(Fields):
    """The body of /v1/load_lora_adapter."""

    lora_name: Name
    lora_path: Name
    """A folder below the base's `adapters`; never a path."""
    load_inplace: bool = False
    model: str = ""
    """The base, where there are several."""
    base_model_name: str = ""


class UnloadAdapterFields(Fields):
    """The body of /v1/unload_lora_adapter."""

    lora_name: Name
    lora_int_id: int | None = None
    """vLLM's own number for it, which is not looked at."""
    model: str = ""


class Adapters:
    """The handlers."""

    def __init__(self, core: AdapterControl, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def load(self, call: Call) -> web.StreamResponse:
        """Returns when the adapter serves."""
        refuse_other_sites(call)
        fields = parse(LoadAdapterFields, await read_json_body(call.request, self._limits))
        base = fields.model or fields.base_model_name
        await self._core.load_adapter(
            fields.lora_name, fields.lora_path, base, in_place=fields.load_inplace
        )
        return _told(f"Success: LoRA adapter '{fields.lora_name}' added successfully.")

    async def unload(self, call: Call) -> web.StreamResponse:
        """Requests that use it end as they would have."""
        refuse_other_sites(call)
        fields = parse(UnloadAdapterFields, await read_json_body(call.request, self._limits))
        await self._core.unload_adapter(fields.lora_name, fields.model)
        return _told(f"Success: LoRA adapter '{fields.lora_name}' removed successfully.")


def _told(text: str) -> Answer:
    return Answer((text.encode(),), content_type="text/plain; charset=utf-8")
