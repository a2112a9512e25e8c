"""How a model's config says that tokens are guessed: vLLM's `speculative_config`, a JSON object."""

import json
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import InvalidConfig

LOOKUP, SUFFIX, DRAFT_MODEL = "ngram", "suffix", "draft_model"
METHODS = (LOOKUP, SUFFIX, DRAFT_MODEL)
_NUM_GUESSES = {LOOKUP: 8, SUFFIX: 16, DRAFT_MODEL: 5}
_MOST_GUESSES = 64
_LONGEST_WORDS = 32
_NUMBERS = {
    "num_speculative_tokens": (1, _MOST_GUESSES),
    "prompt_lookup_min": (1, _LONGEST_WORDS),
    "prompt_lookup_max": (1, _LONGEST_WORDS),
    "suffix_decoding_max_tree_depth": (1, _LONGEST_WORDS),
    "suffix_decoding_max_cached_requests": (0, 1_000_000),
}
"""With the least and the most that each may be."""
_KEYS = ("method", "model", *_NUMBERS)


@dataclass(frozen=True, slots=True)
class SpeculativeConfig:
    """What is guessed by what."""

    method: str
    num_guesses: int
    """Of a sequence at once, at most: how many depends on how many are right."""
    model: str = ""
    """Of `draft_model`: a folder or file in the version's folder."""
    shortest: int = 2
    longest: int = 4
    """So many tokens are looked for where they were before."""
    num_kept_outputs: int = 0
    """Of other requests, in which is looked, too."""


def read_speculative_config(text: str, model: str) -> SpeculativeConfig | None:
    """Of the parameters `speculative_config` and `speculative_model`; None where there is nothing.
    Raises InvalidConfig."""
    given = _given(text) if text else {}
    if not text and not model:
        return None
    if model:
        if given.get("model", model) != model:
            raise _wrong(text, f"'model' is not the parameter speculative_model, '{model}'")
        given = {**given, "model": model}
    method = given.get("method") or (DRAFT_MODEL if given.get("model") else LOOKUP)
    if method not in METHODS:
        raise _wrong(text, f"method is '{method}'; it must be one of {', '.join(METHODS)}")
    if (method == DRAFT_MODEL) != bool(given.get("model")):
        raise _wrong(text, f"'model' goes with method '{DRAFT_MODEL}'; method is '{method}'")
    for key, (least, most) in _NUMBERS.items():
        value = given.get(key, least)
        if type(value) is not int or not least <= value <= most:
            raise _wrong(text, f"{key} is {value!r}; it must be from {least} to {most}")
    return _made(given, method, text)


def without_model(text: str) -> str:
    """The same, for who gives the model's place apart."""
    given = _given(text) if text else {}
    given.pop("model", None)
    return json.dumps(given) if given else ""


def _made(given: dict[str, Any], method: str, text: str) -> SpeculativeConfig:
    longest = given.get("prompt_lookup_max", max(4, given.get("prompt_lookup_min", 0)))
    shortest = given.get("prompt_lookup_min", min(2, longest))
    if shortest > longest:
        raise _wrong(
            text, f"prompt_lookup_min is {shortest}, more than prompt_lookup_max, {longest}"
        )
    if method == SUFFIX:
        longest = max(given.get("suffix_decoding_max_tree_depth", 8), shortest)
    kept = given.get("suffix_decoding_max_cached_requests", 10_000)
    return SpeculativeConfig(
        method,
        given.get("num_speculative_tokens", _NUM_GUESSES[method]),
        given.get("model", ""),
        shortest,
        longest,
        kept if method == SUFFIX else 0,
    )


def _given(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise _wrong(text, 'it must be a JSON object as {"method": "ngram"}')
    for key in given:
        if key not in _KEYS:
            raise _wrong(text, f"'{key}' is unknown; known are {', '.join(_KEYS)}")
    return given


def _wrong(text: str, what: str) -> InvalidConfig:
    return InvalidConfig(f"parameter 'speculative_config' is '{text}': {what}")
