"""What is said of models and versions that are named and do not serve. Pure."""

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from google.protobuf import text_format

from trivet.protos.model_config_pb2 import ModelConfig

NO_SUGGESTIONS: Collection[str] = ()
"""Of servers whose clients may not know which models there are."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that may have been meant; empty where none is like it."""
    by_folded = {each.lower(): each for each in known}
    near = get_close_matches(name[:255].lower(), by_folded, n=1)
    return by_folded[near[0]] if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known; empty where none is like it."""
    near = nearest(name, known)
    return f"; did you mean '{near}'?" if near else ""


def not_in_repository(name: str, known: Iterable[str]) -> str:
    """Of a step or fallback of an ensemble."""
    return f"it is not in the repository{did_you_mean(name, known)}"


def held_back(
    config: ModelConfig, available: Iterable[int], chosen: Collection[int]
) -> Mapping[int, str]:
    """Why versions of a model's folder may not serve, by version."""
    policy = text_format.MessageToString(config.version_policy, as_one_line=True)
    which = f"version_policy {{ {policy} }}" if policy else "version_policy (latest by default)"
    listed = ", ".join(map(str, sorted(chosen)))
    kept = f"it is in the repository, but {which} serves {listed} only"
    failed = "it is loading or did not load; the repository index says which"
    return {version: failed if version in chosen else kept for version in available}


def only_candidates(name: str, candidates: Mapping[int, str]) -> str:
    """Of a model of which no version has passed its evaluation."""
    told = "; ".join(f"version {version}: {why}" for version, why in sorted(candidates.items()))
    text = f"Request for unknown model: '{name}' has no version that has passed its evaluation"
    return f"{text} ({told})"
