"""What a request may say besides its texts: in its parameters, as the v2 protocol has them."""

from dataclasses import dataclass
from typing import TypeVar

from trivet.backends.api import InvalidRequest, Parameters, Unsupported
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.encoder.folder import Prompts

V = TypeVar("V", bool, int, str)
AGGREGATIONS = ("none", "simple")


@dataclass(frozen=True, slots=True)
class Options:
    """Of one request."""

    truncate: bool
    max_tokens: int
    """No more than the model's."""
    direction: str = "right"
    """Which end of a text is cut."""
    prompt: str = ""
    normalize: bool | None = None
    """None: as the folder says."""
    dimensions: int | None = None
    adds_special_tokens: bool = True
    aggregation: str = "none"


def read_options(given: Parameters, info: EncoderInfo, prompts: Prompts) -> Options:
    """Raises InvalidRequest that names the parameter."""
    if not given:
        prompt = prompts.by_name.get(prompts.default, "")
        return Options(info.truncates, info.max_tokens, prompt=prompt)
    limit = _value(given, "max_tokens", int)
    if limit is not None and limit < 1:
        raise InvalidRequest(f"parameter 'max_tokens' is {limit}; at least 1 is needed")
    aggregation = _value(given, "aggregation_strategy", str) or "none"
    if aggregation not in AGGREGATIONS:
        raise Unsupported(
            f"aggregation_strategy: '{aggregation}' is not offered; {', '.join(AGGREGATIONS)} are"
        )
    truncate = _value(given, "truncate", bool)
    adds = _value(given, "add_special_tokens", bool)
    return Options(
        info.truncates if truncate is None else truncate,
        min(limit or info.max_tokens, info.max_tokens),
        _direction(given),
        _prompt(given, prompts),
        _value(given, "normalize", bool),
        _dimensions(given, info),
        adds is not False,
        aggregation,
    )


def _direction(given: Parameters) -> str:
    direction = (_value(given, "truncation_direction", str) or "right").lower()
    if direction not in ("left", "right"):
        raise InvalidRequest(
            f"parameter 'truncation_direction' must be left or right, got '{direction[:60]}'"
        )
    return direction


def _prompt(given: Parameters, prompts: Prompts) -> str:
    name = _value(given, "prompt_name", str)
    if name is None:
        return prompts.by_name.get(prompts.default, "")
    if name not in prompts.by_name:
        known = ", ".join(sorted(prompts.by_name)) or "none"
        raise InvalidRequest(
            f"prompt_name: the model has no prompt '{name[:60]}'; its prompts are: {known}"
        )
    return prompts.by_name[name]


def _dimensions(given: Parameters, info: EncoderInfo) -> int | None:
    dimensions = _value(given, "dimensions", int)
    if dimensions is not None and not 1 <= dimensions <= info.dimensions:
        raise InvalidRequest(
            f"dimensions: {dimensions} are not between 1 and the {info.dimensions} that the model "
            "gives"
        )
    return dimensions


def _value(given: Parameters, name: str, kind: type[V]) -> V | None:
    value = given.get(name)
    if value is None:
        return None
    if type(value) is not kind:
        raise InvalidRequest(
            f"parameter '{name}' must be of type {kind.__name__}, got {str(value)[:60]!r}"
        )
    return value
