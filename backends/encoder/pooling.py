"""Token vectors to a text's vector: pooling and what sentence-transformers puts behind it. One
spelling for numpy's arrays and torch's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trivet.backends.api import LoadFailed
from trivet.backends.encoder.computing import Array, Body, Computed
from trivet.backends.encoder.modules import Dense, LayerNorm, Module, Normalize, Pooling

_SMALLEST_SUM = 1e-9
_SMALLEST_LENGTH = 1e-12


class Layer(Protocol):
    """One step from vectors to vectors."""

    def __call__(self, xp: Any, vectors: Array) -> Array: ...


class Pooler:
    """The chain of a folder. The last normalisation is left to `VectorHead`: requests may switch it
    off."""

    def __init__(self, modules: Sequence[Module], body: Body) -> None:
        """Reads the modules' weights. Raises LoadFailed."""
        rest = list(modules)
        self.normalizes = bool(rest) and isinstance(rest[-1], Normalize)
        if self.normalizes:
            rest.pop()
        first = rest[0] if rest else None
        self.pooling = first if isinstance(first, Pooling) else Pooling(("mean",))
        if first is self.pooling:
            rest = rest[1:]
        self._layers = [_layer(each, body) for each in rest]
        self._xp = body.arrays

    def __call__(self, computed: Computed, prompt_sizes: Sequence[int] | None) -> Array:
        """[rows, size]. `prompt_sizes`: how many tokens of each row's beginning do not count."""
        xp, vectors = self._xp, computed.values
        if vectors.ndim == 3:
            mask = _without_prompts(computed.mask, prompt_sizes)
            parts = [_pooled(xp, mode, vectors, mask, computed.mask) for mode in self.pooling.modes]
            vectors = parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=-1)
            for layer in self._layers:
                vectors = layer(xp, vectors)
        return vectors


def _without_prompts(mask: Array, prompt_sizes: Sequence[int] | None) -> Array:
    if prompt_sizes is None or not any(prompt_sizes):
        return mask
    kept = mask + 0
    for row, size in enumerate(prompt_sizes):
        kept[row, :size] = 0
    return kept


def _pooled(xp: Any, mode: str, vectors: Array, mask: Array, whole_mask: Array) -> Array:
    rows = xp.arange(len(vectors))
    if mode == "cls":
        return vectors[rows, mask.argmax(axis=1)]
    if mode == "lasttoken":
        return vectors[rows, whole_mask.sum(axis=1) - 1]
    weights = _as(mask, vectors)[..., None]
    if mode == "max":
        low = weights * 0 - xp.inf
        return xp.amax(xp.where(weights > 0, vectors, low), axis=1)
    if mode == "weightedmean":
        places = _as(whole_mask.cumsum(axis=1), vectors)[..., None]
        weights = weights * places
    total = (vectors * weights).sum(axis=1)
    divisor = weights.sum(axis=1).clip(min=_SMALLEST_SUM)
    return total / (xp.sqrt(divisor) if mode == "mean_sqrt_len_tokens" else divisor)


def _as(mask: Array, vectors: Array) -> Array:
    """A mask in the vectors' type."""
    return mask.to(vectors.dtype) if hasattr(mask, "to") else mask.astype(vectors.dtype)


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Array
    bias: Array | None
    activation: str
    has_residual: bool
    residual: Array | None

    def __call__(self, xp: Any, vectors: Array) -> Array:
        out = vectors @ self.weight.T
        if self.bias is not None:
            out = out + self.bias
        out = _activated(xp, out, self.activation)
        if self.has_residual:
            out = out + (vectors if self.residual is None else vectors @ self.residual.T)
        return out


def _activated(xp: Any, values: Array, name: str) -> Array:
    if name == "Tanh":
        return xp.tanh(values)
    if name == "ReLU":
        return values.clip(min=0)
    return 1 / (1 + xp.exp(-values)) if name == "Sigmoid" else values


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Array
    bias: Array
    smallest: float = 1e-5

    def __call__(self, xp: Any, vectors: Array) -> Array:
        centred = vectors - vectors.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        return centred / xp.sqrt(variance + self.smallest) * self.weight + self.bias


def _unit(xp: Any, vectors: Array) -> Array:
    lengths = xp.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return vectors / lengths.clip(min=_SMALLEST_LENGTH)


def _layer(module: Module, body: Body) -> Layer:
    if isinstance(module, Normalize):
        return _unit
    if isinstance(module, Dense):
        found = body.weights(module.folder)
        weight = _named(found, "linear.weight", module.folder.name)
        return _Linear(
            weight,
            found.get("linear.bias"),
            module.activation,
            module.has_residual,
            found.get("residual.weight"),
        )
    if isinstance(module, LayerNorm):
        found = body.weights(module.folder)
        name = module.folder.name
        return _Norm(_named(found, "norm.weight", name), _named(found, "norm.bias", name))
    raise LoadFailed(f"modules.json has a second {type(module).__name__}; one is computed here")


def _named(found: dict[str, Array], name: str, folder: str) -> Array:
    if name not in found:
        raise LoadFailed(f"the weights of {folder} have no '{name}'; they have {sorted(found)}")
    return found[name]
