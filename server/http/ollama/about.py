"""GET /api/tags, /api/ps and /api/version, POST /api/show: what there is."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import orjson
from aiohttp import web

from trivet import __version__
from trivet.backends.api import Generator, InvalidRequest
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.formats.registry import thought_format
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.limits import HttpLimits
from trivet.server.http.ollama.names import iso_time, own_name
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.prompts import asked_generator
from trivet.server.http.routes import Call

Document = dict[str, Any]
_NEVER = "9999-12-31T23:59:59Z"
"""When a model leaves memory that stays there."""


class OllamaAbout:
    """The handlers. They import nothing that a server without language models has not."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits
        self._started = iso_time(time.time())

    async def tags(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """All models of texts."""
        return json_answer({"models": [self._entry(*each) for each in self._found()]})

    async def running(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """Those in memory: all that are ready are."""
        rows = [self._entry(*each) for each in self._found()]
        held = {"expires_at": _NEVER, "size_vram": 0}
        return json_answer({"models": [{**row, **held} for row in rows]})

    async def version(self, call: Call) -> web.StreamResponse:  # noqa: ARG002
        """The server's version."""
        return json_answer({"version": __version__})

    async def show(self, call: Call) -> web.StreamResponse:
        """What one of them is."""
        name = own_name(self._core, _named(await read_json_body(call.request, self._limits)))
        info = self._core.encoders().get(name)
        if info is not None:
            return json_answer(_shown(_encoder_details(info), info.max_tokens, ["embedding"], ""))
        generator = asked_generator(self._core, name, call)
        told = generator.info
        shown = _shown(
            _details(generator), told.max_model_len, _capabilities(generator), told.chat_template
        )
        shown["parameters"] = "\n".join(
            f"{key} {value}" for key, value in told.sampling_defaults.items()
        )
        return json_answer(shown)

    def _found(self) -> Iterator[tuple[str, Document]]:
        rows = {name: _details(each) for name, each in self._core.generators().items()}
        rows |= {name: _encoder_details(each) for name, each in self._core.encoders().items()}
        yield from sorted(rows.items())

    def _entry(self, name: str, details: Document) -> Document:
        """Ollama's digest is of a model's manifest; here it is of what the entry says."""
        digest = hashlib.sha256(orjson.dumps([name, details])).hexdigest()
        return {
            "name": name,
            "model": name,
            "modified_at": self._started,
            "size": 0,
            "digest": digest,
            "details": details,
        }


def _named(body: bytes | memoryview) -> str:
    """The body's model, which was called `name` before. Raises InvalidRequest."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the request body is no JSON: {error}") from None
    given = document if isinstance(document, dict) else {}
    name = given.get("model") or given.get("name")
    if not isinstance(name, str):
        raise InvalidRequest("model: it must be the name of a model")
    return name


def _details(generator: Generator) -> Document:
    return _detail(generator.info.architecture, generator.info.dtype, generator.info.parent)


def _encoder_details(info: EncoderInfo) -> Document:
    return _detail(info.architecture, info.dtype, "")


def _detail(family: str, dtype: str, parent: str) -> Document:
    return {
        "parent_model": parent,
        "format": "",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": dtype,
    }


def _shown(details: Document, length: int, capabilities: list[str], template: str) -> Document:
    family = details["family"]
    return {
        "modelfile": "",
        "parameters": "",
        "template": template,
        "details": details,
        "model_info": {"general.architecture": family, f"{family}.context_length": length},
        "capabilities": capabilities,
    }


def _capabilities(generator: Generator) -> list[str]:
    info = generator.info
    found = {
        "completion": True,
        "tools": bool(info.tool_call_parser),
        "vision": info.takes_images,
        "thinking": thought_format(info.reasoning_parser) is not None,
    }
    return [name for name, is_there in found.items() if is_there]
