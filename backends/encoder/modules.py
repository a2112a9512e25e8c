"""The modules of sentence-transformers behind the transformer itself, as their files say."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from trivet.backends.api import InvalidConfig
from trivet.backends.encoder.about import MODULES

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_OLDER_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The older form has a boolean for each; vectors are joined in this order."""
_ACTIVATIONS = ("Identity", "ReLU", "Sigmoid", "Tanh")


class Module(Protocol):
    """One step behind the transformer."""

    def size_after(self, size: int) -> int:
        """Of the vectors that come out, given that of those that go in."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """Token vectors to one, or to several that are joined."""

    modes: tuple[str, ...]
    includes_prompt: bool = True

    def size_after(self, size: int) -> int:
        """See Module."""
        return size * len(self.modes)


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer with an activation."""

    folder: Path
    size: int
    activation: str
    has_residual: bool = False

    def size_after(self, size: int) -> int:  # noqa: ARG002 - it has its own
        """See Module."""
        return self.size


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Vectors of mean 0 and variance 1, scaled."""

    folder: Path

    def size_after(self, size: int) -> int:
        """See Module."""
        return size


@dataclass(frozen=True, slots=True)
class Normalize:
    """Vectors of length 1."""

    def size_after(self, size: int) -> int:
        """See Module."""
        return size


@dataclass(frozen=True, slots=True)
class Modules:
    """Where the transformer is, and what follows it."""

    body: Path
    after: Sequence[Module]


def read_modules(root: Path, name: str) -> Modules:
    """What modules.json lists. Raises InvalidConfig for a kind that is not computed here."""
    try:
        listed = orjson.loads((root / MODULES).read_bytes())
        entries = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in listed]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise InvalidConfig(f"model '{name}': {MODULES} is no list of modules") from None
    if not entries or entries[0][0] != "Transformer":
        raise InvalidConfig(
            f"model '{name}': {MODULES} must begin with a Transformer; it has "
            f"{[kind for kind, _ in entries]}"
        )
    after = [_module(root, kind, path, name) for kind, path in entries[1:] if kind != "Dropout"]
    return Modules(_inside(root, entries[0][1], name), after)


def _inside(root: Path, path: str, name: str) -> Path:
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise InvalidConfig(f"model '{name}': {MODULES} points outside the folder: '{path}'")
    return root / path


def _module(root: Path, kind: str, path: str, name: str) -> Module:
    folder = _inside(root, path, name)
    if kind == "Normalize":
        return Normalize()
    config = _config(folder, name)
    if kind == "Pooling":
        return Pooling(_modes(config, name), bool(config.get("include_prompt", True)))
    if kind == "Dense":
        return Dense(
            folder,
            int(config["out_features"]),
            _activation(config, name),
            bool(config.get("use_residual")),
        )
    if kind == "LayerNorm":
        return LayerNorm(folder)
    raise InvalidConfig(
        f"model '{name}': {MODULES} has a '{kind}', which is not computed here; Transformer, "
        "Pooling, Dense, LayerNorm, Normalize and Dropout are"
    )


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = orjson.loads((folder / "config.json").read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        raise InvalidConfig(
            f"model '{name}': {folder.name}/config.json is missing or no JSON"
        ) from None
    if not isinstance(found, dict):
        raise InvalidConfig(f"model '{name}': {folder.name}/config.json must be a JSON object")
    return found


def _modes(config: dict[str, Any], name: str) -> tuple[str, ...]:
    given = config.get("pooling_mode")
    if isinstance(given, str):
        modes: tuple[str, ...] = (given,)
    elif isinstance(given, list):
        modes = tuple(map(str, given))
    else:
        modes = tuple(mode for key, mode in _OLDER_MODES.items() if config.get(key)) or ("mean",)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise InvalidConfig(
            f"model '{name}': pooling {unknown} is not computed here; {', '.join(MODES)} are"
        )
    return modes


def _activation(config: dict[str, Any], name: str) -> str:
    given = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if given not in _ACTIVATIONS:
        raise InvalidConfig(
            f"model '{name}': the activation '{given}' of a Dense module is not computed here; "
            f"{', '.join(_ACTIVATIONS)} are"
        )
    return given
