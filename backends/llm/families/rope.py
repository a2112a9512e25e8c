"""Rotary positions as config.json spells them: every spelling becomes one `Rope`, and a key that
would change the result and is not used is refused.

The spellings are those of transformers: `rope_parameters`, or before its version 5 `rope_scaling`,
which wins where both are there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described, NotComputed
from trivet.backends.llm.families.kinds import Rope, RopeScaling

DEFAULT_THETA = 10_000.0
_OF_ANY_KIND = {
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings",
}  # fmt: skip
_OF_KIND = {
    "default": set[str](),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "yarn": {
        "factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
        "truncate",
    },
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RopeRules:
    """How a family's config.json is read, where it is not read as most are."""

    theta: float = DEFAULT_THETA
    """Where the file does not say."""
    theta_key: str = "rope_theta"
    share: float | None = None
    """Of each head, what is rotated where the file does not say; None: always all of it, and a file
    that says otherwise is refused."""
    share_key: str = "partial_rotary_factor"
    original_positions: int | None = None
    """Before they were scaled, where the file does not say; None: as many as there are."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Kinds that go by other names."""
    layer_type: str = ""
    """Whose rotary positions are read, where `rope_parameters` has several by types of layers."""


def hub_rope(config: Described, head_dim: int, rules: RopeRules | None = None) -> Rope:
    """A config.json's. Raises LoadFailed naming the key."""
    return _Spelling.of(config, head_dim, rules or RopeRules()).rope()


def hub_positions(config: Described, rope: Rope | None) -> int:
    """How many positions a model has; with long and short divisors as many as the short ones are
    for (`stretching.py`)."""
    positions = config.size("max_position_embeddings")
    if rope is not None and rope.scaling is not None and rope.scaling.kind == "longrope":
        return min(positions, rope.scaling.original_positions)
    return positions


@dataclass(frozen=True, slots=True)
class _Spelling:
    """What a file says of one kind of layer."""

    config: Described
    head_dim: int
    rules: RopeRules
    where: str
    given: Mapping[str, Any]

    @classmethod
    def of(cls, config: Described, head_dim: int, rules: RopeRules) -> "_Spelling":
        where = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
        given = config.get(where) or {}
        if not isinstance(given, Mapping):
            raise LoadFailed(f"config.json has {where} {given!r}; it must be an object")
        if rules.layer_type:
            where, given = _of_type(config, where, given, rules.layer_type)
        return cls(config, head_dim, rules, where, given)

    def rope(self) -> Rope:
        """Raises LoadFailed."""
        kind = self._kind()
        self._refuse_unused(kind)
        rope = Rope(self._theta(), size=self._size())
        if kind == "default":
            return rope
        return replace(rope, scaling=getattr(self, f"_{kind}")())

    def _kind(self) -> str:
        kind = self.given.get("rope_type") or self.given.get("type") or "default"
        kind = self.rules.renamed.get(kind, kind) if isinstance(kind, str) else kind
        if kind not in _OF_KIND:
            known = ", ".join(sorted(_OF_KIND.keys() - {"default"}))
            raise NotComputed(f"rope scaling '{kind}' is not supported; {known} are ({self.where})")
        return str(kind)

    def _theta(self) -> float:
        theta = self.given.get("rope_theta") or self.config.get(self.rules.theta_key)
        theta = theta or self.rules.theta
        passed_over = (self.config.get("rope_parameters") or {}).get("rope_theta") or theta
        if passed_over != theta:
            raise LoadFailed(
                f"config.json has rope_parameters.rope_theta {passed_over} beside a "
                f"rope_scaling, which transformers reads in its place, with rope_theta {theta}: "
                "move rope_theta into rope_scaling"
            )
        return _number("rope_theta", theta)

    def _size(self) -> int:
        share = self.given.get("partial_rotary_factor", self.config.get(self.rules.share_key))
        share = self.rules.share if share is None else share
        if share is None or share == 1.0:
            return 0
        if self.rules.share is None:
            raise NotComputed(
                f"config.json has partial_rotary_factor {share}; models of this architecture that "
                "rotate a part of each head only are not supported"
            )
        size = int(self.head_dim * _number(self.rules.share_key, share))
        if not 0 < size <= self.head_dim or size % 2:
            raise LoadFailed(
                f"config.json has {self.rules.share_key} {share}, which makes {size} of "
                f"{self.head_dim} numbers of each head rotate; that must be an even number of them"
            )
        return 0 if size == self.head_dim else size

    def _linear(self) -> RopeScaling:
        return RopeScaling("linear", self._needed("linear", "factor"))

    def _llama3(self) -> RopeScaling:
        return RopeScaling(
            "llama3",
            self._needed("llama3", "factor"),
            self._needed("llama3", "low_freq_factor"),
            self._needed("llama3", "high_freq_factor"),
            self._original(),
        )

    def _yarn(self) -> RopeScaling:
        factor = self._factor("yarn")
        scales = [self._number(name, 0.0) for name in ("mscale", "mscale_all_dim")]
        usual = yarn_scale(factor, 1.0)
        if all(scales):
            usual = yarn_scale(factor, scales[0]) / yarn_scale(factor, scales[1])
        truncates = self.given.get("truncate", True)
        if not isinstance(truncates, bool):
            raise LoadFailed(f"config.json has {self.where}.truncate {truncates!r}, no boolean")
        return RopeScaling(
            "yarn",
            factor,
            original_positions=self._original(),
            beta_fast=self._number("beta_fast", 32.0) or 32.0,
            beta_slow=self._number("beta_slow", 1.0) or 1.0,
            truncates=truncates,
            attention_factor=self._number("attention_factor", usual),
            all_dim_share=scales[1],
        )

    def _longrope(self) -> RopeScaling:
        factor, original = self._factor("longrope"), self._original()
        usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        return RopeScaling(
            "longrope",
            factor,
            original_positions=original,
            attention_factor=self._number("attention_factor", usual),
            divisors=self._divisors("short_factor"),
            long_divisors=self._divisors("long_factor"),
        )

    def _dynamic(self) -> RopeScaling:
        """Which changes nothing up to the positions that there are."""
        num_positions = self.config.size("max_position_embeddings")
        factor = self._needed("dynamic", "factor")
        return RopeScaling("dynamic", factor, original_positions=num_positions)

    def _factor(self, kind: str) -> float:
        """By how much there are more positions than before."""
        if self.given.get("factor") is None and (kind == "longrope" or "factor" in self.given):
            return self.config.size("max_position_embeddings") / self._original()
        return self._needed(kind, "factor")

    def _original(self) -> int:
        name = "original_max_position_embeddings"
        found = self.given.get(name)
        if not self.rules.layer_type:
            # As transformers: the key beside it counts more.
            found = self.config.get(name) or self.rules.original_positions or found
        return int(_number(name, found or self.config.size("max_position_embeddings")))

    def _divisors(self, name: str) -> tuple[float, ...]:
        found = self.given.get(name)
        wanted = (self._size() or self.head_dim) // 2
        if not isinstance(found, list) or len(found) != wanted:
            raise LoadFailed(
                f"config.json has {self.where}.{name} {str(found)[:64]}; it must be a list of "
                f"{wanted} numbers, for half of what is rotated of each head"
            )
        return tuple(_number(f"{self.where}.{name}", each) for each in found)

    def _needed(self, kind: str, name: str) -> float:
        if self.given.get(name) is None:
            raise LoadFailed(f"config.json has {self.where} of type '{kind}' without '{name}'")
        return _number(f"{self.where}.{name}", self.given[name])

    def _number(self, name: str, default: float) -> float:
        value = self.given.get(name)
        return default if value is None else _number(f"{self.where}.{name}", value)

    def _refuse_unused(self, kind: str) -> None:
        used = _OF_ANY_KIND | _OF_KIND[kind]
        for name, value in self.given.items():
            is_neutral = value is None or (name == "factor" and value == 1.0)
            if name not in used and not is_neutral:
                raise LoadFailed(
                    f"config.json has {self.where}.{name} {value!r}, which rotary positions of "
                    f"type '{kind}' do not use: correct rope_type, or leave the key out"
                )


def _of_type(
    config: Described, where: str, given: Mapping[str, Any], layer_type: str
) -> tuple[str, Mapping[str, Any]]:
    """Where a file says it for a type of layers, and what. In rope_scaling it has no types."""
    if where == "rope_scaling":
        if config.get("rope_parameters"):
            raise LoadFailed(
                "config.json has a rope_scaling beside rope_parameters, which for layers of "
                "several types are one: leave rope_scaling out"
            )
        return where, given
    if given and layer_type not in given:
        raise LoadFailed(
            f"config.json has rope_parameters {sorted(given)} without '{layer_type}'; this "
            "architecture needs them for each type of layers"
        )
    found = given.get(layer_type) or {}
    if not isinstance(found, Mapping):
        raise LoadFailed(f"config.json has {where}.{layer_type} {found!r}; it must be an object")
    return f"{where}.{layer_type}", found


def yarn_scale(factor: float, share: float) -> float:
    """By what YaRN has scores grow (Peng et al., 2023, 3.4), as DeepSeek's files spell it."""
    return 0.1 * share * math.log(factor) + 1.0 if factor > 1 else 1.0


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise LoadFailed(f"the model's {name} is {value!r}; it must be a number above 0")
    return float(value)
