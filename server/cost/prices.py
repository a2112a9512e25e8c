"""The file of `--prices`.

currency = "USD"
machine_hour = 0.40        # an hour of this machine
gpu_hour = 2.10            # an hour of one of its GPUs, instead, for models that compute on those

[models.qwen]
hour = 4.20                # an hour of this model: one on two GPUs
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

HOUR_S = 3600.0
_KEYS = ("currency", "gpu_hour", "machine_hour", "models")


@dataclass(frozen=True, slots=True)
class Prices:
    """What time costs."""

    currency: str
    machine_hour: float
    gpu_hour: float | None = None
    """None: as an hour of the machine."""
    of_models: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """An hour of a model, for those that have a price of their own."""

    def per_second(self, name: str, config: ModelConfig) -> float:
        """Of a model's computing."""
        own = self.of_models.get(name)
        if own is not None:
            return own / HOUR_S
        is_on_gpu = any(g.kind == ModelInstanceGroup.KIND_GPU for g in config.instance_group)
        hour = self.machine_hour if self.gpu_hour is None or not is_on_gpu else self.gpu_hour
        return hour / HOUR_S


def read_prices(path: Path) -> Prices:
    """Raises InvalidConfig with the place of a fault."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"--prices={path} cannot be read: {error}") from None
    _check_keys(given, str(path))
    currency = given.get("currency", "USD")
    if not isinstance(currency, str) or not 0 < len(currency) <= 16:
        raise InvalidConfig(f"{path}: currency is to be a short text, got {currency!r:.64}")
    if "machine_hour" not in given:
        raise InvalidConfig(f"{path}: it lacks machine_hour, what an hour of this machine costs")
    gpu_hour = _price(given, "gpu_hour", path) if "gpu_hour" in given else None
    return Prices(currency, _price(given, "machine_hour", path), gpu_hour, _of_models(given, path))


def _check_keys(given: Mapping[str, Any], place: str) -> None:
    for key in given:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1)
            meant = f"did you mean '{near[0]}'?" if near else f"its keys are {', '.join(_KEYS)}"
            raise InvalidConfig(f"{place}: it has no key '{key[:64]}'; {meant}")


def _of_models(given: Mapping[str, Any], path: Path) -> Mapping[str, float]:
    tables = given.get("models", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise InvalidConfig(f"{path}: models are tables, [models.NAME]")
    for name, table in tables.items():
        if table.keys() != {"hour"}:
            raise InvalidConfig(f"{path}: [models.{name[:64]}] has 'hour' and nothing else")
    return MappingProxyType({n: _price(t, "hour", path, n) for n, t in tables.items()})


def _price(given: Mapping[str, Any], key: str, path: Path, model: str = "") -> float:
    price = given[key]
    is_number = isinstance(price, int | float) and not isinstance(price, bool)
    if is_number and price >= 0 and math.isfinite(price):
        return float(price)
    place = f"models.{model}.{key}" if model else key
    raise InvalidConfig(f"{path}: {place} is to be a price, a number from 0, got {price!r:.64}")
