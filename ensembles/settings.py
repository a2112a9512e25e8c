"""What trivet adds to the steps of an ensemble, read from the config's parameters. Pure.

    parameters { key: "step.classifier.when"  value { string_value: "any(MASK)" } }

A step is named by its model, or by its number (the first is 0) where a model has several steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from trivet.backends.api import InvalidConfig
from trivet.protos.model_config_pb2 import ModelConfig

PREFIX = "step."
MERGE_REQUESTS = "merge_requests"
"""Parameter of the ensemble as a whole: "true", "false" or "auto"; see `merging.py`."""
SETTINGS = ("when", "return_if", "map", "timeout_ms", "retries", "fallback")
MAX_RETRIES = 10


@dataclass(frozen=True, slots=True)
class StepSettings:
    """Of one step, as written; conditions are read once the tensors are known."""

    when: str = ""
    """The step runs only if this holds; else its outputs are absent."""
    return_if: str = ""
    """After the step the ensemble answers with what there is if this holds."""
    map: tuple[str, ...] = ()
    """Ensemble tensors whose elements go through the step one by one."""
    timeout_s: float = 0.0
    """How long one try may take; 0: as long as it likes."""
    retries: int = 0
    """Further tries after a failure that may pass."""
    fallback: str = ""
    """The model that is asked when the last try has failed."""


@dataclass(slots=True)
class _Given:
    """What the parameters say of one step."""

    values: dict[str, str] = field(default_factory=dict)


def step_settings(config: ModelConfig, where: str) -> list[StepSettings]:
    """For each step in config order. Raises InvalidConfig for what is not known or out of range."""
    names = [step.model_name for step in config.ensemble_scheduling.step]
    given = [_Given() for _ in names]
    for key in sorted(config.parameters):
        if key.startswith(PREFIX):
            index, setting = _place(key, names, where)
            given[index].values[setting] = config.parameters[key].string_value
    return [_settings(each.values, f"{where}: step {i}") for i, each in enumerate(given)]


def _place(key: str, names: list[str], where: str) -> tuple[int, str]:
    step, dot, setting = key.removeprefix(PREFIX).rpartition(".")
    if not dot or setting not in SETTINGS:
        _refuse(where, key, f"a step has no setting '{setting}'; there are {', '.join(SETTINGS)}")
    if step.isdecimal() and int(step) < len(names):
        return int(step), setting
    if names.count(step) > 1:
        _refuse(where, key, f"model '{step}' is in several steps; give the step's number, from 0")
    if step not in names:
        _refuse(where, key, f"there is no step '{step}'; the steps are {_listed(names)}")
    return names.index(step), setting


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{number} '{name}'" for number, name in enumerate(names))


def _settings(values: dict[str, str], where: str) -> StepSettings:
    timeout_ms = _number(values, "timeout_ms", 86_400_000, where)
    retries = _number(values, "retries", MAX_RETRIES, where)
    tensors = tuple(name.strip() for name in values.get("map", "").split(",") if name.strip())
    return StepSettings(
        values.get("when", ""),
        values.get("return_if", ""),
        tensors,
        timeout_ms / 1000,
        int(retries),
        values.get("fallback", "").strip(),
    )


def _number(values: dict[str, str], name: str, most: int, where: str) -> int:
    text = values.get(name, "0").strip()
    if not text.isdecimal() or int(text) > most:
        raise InvalidConfig(f"{where}: {name} is '{text}'; it must be a number from 0 to {most}")
    return int(text)


def _refuse(where: str, key: str, why: str) -> NoReturn:
    raise InvalidConfig(f"{where}: parameter '{key}': {why}")
