"""Which model a request of this API means: TGI serves one, so its requests name none."""

from trivet.backends.api import Generator, InvalidRequest, ModelNotReady
from trivet.backends.api.adapting import SEPARATOR
from trivet.server.core import Generators
from trivet.server.http.openai.prompts import PLACEHOLDERS, asked_generator
from trivet.server.http.routes import Call


def choose(
    core: Generators, call: Call, named: str | None, adapter: str = ""
) -> tuple[str, Generator]:
    """The model of the field or header `model`, or the only one that generates, with its name; or
    an adapter of it.

    Raises InvalidRequest when several do and none is named, ModelNotFound, ModelNotReady.
    """
    name = named or call.request.headers.get("model", "")
    if name and (name not in PLACEHOLDERS or name in core.generators()):
        return name, asked_generator(core, _adapted(name, adapter), call)
    found = core.unnamed_generators()
    if not found:
        raise ModelNotReady("no model that generates text is ready")
    if len(found) > 1:
        raise InvalidRequest(
            f"model: {len(found)} models generate text ({', '.join(sorted(found))}); name one in "
            "the field or header 'model'"
        )
    (name,) = found
    return name, asked_generator(core, _adapted(name, adapter), call)


def _adapted(name: str, adapter: str) -> str:
    return f"{name}{SEPARATOR}{adapter}" if adapter else name
