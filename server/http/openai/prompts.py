"""What chat and completions do alike with models, prompts and seeds."""

from dataclasses import replace

from trivet.backends.api import Generator, InvalidRequest, ModelNotFound, Sampling
from trivet.server.core import Generators
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import Call

PLACEHOLDERS = ("tgi", "dummy")
"""What clients of Hugging Face send for the model that is there: its servers have one."""


def named_generator(core: Generators, name: str, call: Call) -> tuple[str, Generator]:
    """The model of that name and its own name: for a placeholder it is the only one that generates.
    Raises ModelNotFound, ModelNotReady."""
    if name in PLACEHOLDERS and name not in core.generators():
        found = core.unnamed_generators()
        if len(found) == 1:
            (name,) = found
    return name, asked_generator(core, name, call)


def generator_for(core: Generators, name: str | None, call: Call) -> Generator:
    """The model named, or the only one. Raises ModelNotFound, ModelNotReady."""
    if name is None:
        found = core.unnamed_generators()
        if len(found) != 1:
            raise ModelNotFound(f"model: {len(found)} models generate text; name one of them")
        (name,) = found
    return asked_generator(core, name, call)


def asked_generator(core: Generators, name: str, call: Call) -> Generator:
    """The model of that name; the call's answers say which version it is. Raises ModelNotFound,
    NotFound, ModelNotReady."""
    key = RequestIds.given(call.request.headers)
    generator, call.told = core.generator(name, call.version, key, call)
    return generator


def seeded(sampling: Sampling, index: int) -> Sampling:
    """The sampling of the choice with this index: choices of one seed differ from each other."""
    if index == 0 or sampling.seed is None:
        return sampling
    return replace(sampling, seed=sampling.seed + index)


def truncated(
    ids: list[int], limit: int | None, generator: Generator, side: str | None = None
) -> list[int]:
    """The last `limit` tokens, or the first ones where those on the right are to go; -1: as many as
    the model takes. Raises InvalidRequest."""
    if limit is None:
        return ids
    if limit == 0:
        raise InvalidRequest("truncate_prompt_tokens: it is 0; at least 1 is needed, or -1")
    size = generator.info.max_model_len - 1 if limit < 0 else limit
    return ids[:size] if side == "right" else ids[-size:]
