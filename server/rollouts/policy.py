"""How a version is rolled out: `[rollout]` of traffic.toml, or a file for a whole repository.

steps = [1, 5, 25, 50, 100]   # per cent of the requests
bake_s = 300                  # in each step, at the least
min_samples = 100             # requests of the candidate in each step, at the least
max_step_s = 3600             # a step that has not seen so many by then goes back
false_alarm = 0.005           # chance that a version which is no worse is taken back

[guards]
errors = 0
p99 = 0.1
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidConfig
from trivet.server.models.texts import did_you_mean
from trivet.server.models.traffic import WHOLE, Traffic
from trivet.server.repository.layout import TRAFFIC_FILE
from trivet.server.rollouts.guards import Guard, guard_of, guards_of

USUAL_GUARDS = (guard_of("errors", 0), guard_of("p50", 0.1), guard_of("p99", 0.1))
MOST_REQUESTS_PER_S = 100_000
"""More than a server takes."""
_MOST_STEPS = 20
_KEYS = (
    "steps",
    "bake_s",
    "min_samples",
    "max_step_s",
    "false_alarm",
    "guards",
)
_LONGEST_S = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Policy:
    """What a roll-out goes by."""

    steps: tuple[int, ...] = (100, 500, 2500, 5000, WHOLE)
    """In hundredths of a percent, ascending; the last one is all."""
    bake_s: float = 300.0
    min_samples: int = 100
    max_step_s: float = 3600.0
    false_alarm: float = 0.005
    guards: tuple[Guard, ...] = field(default=USUAL_GUARDS)

    @property
    def alarm(self) -> float:
        """Of one guard: together they may not give more false alarms than `false_alarm`."""
        return self.false_alarm / len(self.guards)

    @property
    def table(self) -> dict[str, Any]:
        """As `parse_policy` takes it."""
        return {
            "steps": [weight / 100 for weight in self.steps],
            "bake_s": self.bake_s,
            "min_samples": self.min_samples,
            "max_step_s": self.max_step_s,
            "false_alarm": self.false_alarm,
            "guards": {guard.name: guard.tolerance for guard in self.guards},
        }

    def required_rate(self, step: int) -> float:
        """The requests a second that the model needs for the samples of a step."""
        return self.min_samples / self.max_step_s / (self.steps[step] / WHOLE)

    def check_rate(self, requests_per_s: float) -> None:
        """Raises InvalidConfig where so many requests never give the samples of a step."""
        for number, weight in enumerate(self.steps):
            needed = self.required_rate(number)
            if needed > requests_per_s:
                raise InvalidConfig(
                    f"a step of {weight / 100:g} % can never get its {self.min_samples} samples "
                    f"within {self.max_step_s:g} s: that needs {needed:,.4g} requests a second, "
                    f"and there are {requests_per_s:,.4g} at most; lower min_samples or raise "
                    "max_step_s"
                )


def parse_policy(table: Mapping[str, Any]) -> Policy:
    """What a table says. Raises InvalidConfig."""
    for key in table:
        if key not in _KEYS:
            near = did_you_mean(key, _KEYS)
            raise InvalidConfig(
                f"a roll-out has no key '{key[:64]}'{near or '; its keys are ' + ', '.join(_KEYS)}"
            )
    usual = Policy()
    guards = table.get("guards")
    if guards is not None and (not isinstance(guards, dict) or not guards):
        raise InvalidConfig(
            "guards is to be a table with at least one guard, such as errors = 0: without one "
            "nothing would ever be taken back"
        )
    policy = Policy(
        _steps(table.get("steps")) or usual.steps,
        _number(table, "bake_s", usual.bake_s, 0.0, _LONGEST_S),
        int(_number(table, "min_samples", usual.min_samples, 0, 1e9)),
        _number(table, "max_step_s", usual.max_step_s, 1.0, _LONGEST_S),
        _number(table, "false_alarm", usual.false_alarm, 1e-9, 0.5),
        guards_of(guards) if guards is not None else usual.guards,
    )
    if policy.max_step_s < policy.bake_s:
        raise InvalidConfig(
            f"max_step_s, {policy.max_step_s:g}, is less than bake_s, {policy.bake_s:g}: no step "
            "could end"
        )
    policy.check_rate(MOST_REQUESTS_PER_S)
    return policy


def policy_of(traffic: Traffic) -> Policy | None:
    """That of a model's own file; None: it says nothing of it. Raises InvalidConfig."""
    if traffic.rollout is None:
        return None
    try:
        return parse_policy(traffic.rollout)
    except InvalidConfig as error:
        raise InvalidConfig(f"{TRAFFIC_FILE}: [rollout]: {error.message}") from error


def read_policy(path: Path) -> Policy:
    """Of a file. Raises InvalidConfig."""
    try:
        return parse_policy(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"the roll-out policy {path} cannot be read: {error}") from error
    except InvalidConfig as error:
        raise InvalidConfig(f"the roll-out policy {path}: {error.message}") from error


def _steps(given: object) -> tuple[int, ...]:
    if given is None:
        return ()
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InvalidConfig(f"steps is to be a list of percentages, got {repr(given)[:64]}")
    if len(given) > _MOST_STEPS:
        raise InvalidConfig(f"{len(given)} steps were given; at most {_MOST_STEPS} are allowed")
    steps = tuple(map(_weight, given))
    if list(steps) != sorted(set(steps)) or steps[-1] != WHOLE:
        raise InvalidConfig(f"steps are to rise and to end with 100, got {repr(given)[:64]}")
    return steps


def _weight(given: object) -> int:
    if isinstance(given, int | float) and not isinstance(given, bool) and 0 < given <= 100:
        weight = round(given * 100)
        if weight and abs(weight - given * 100) < 1e-6:
            return weight
    raise InvalidConfig(
        f"a step is a percentage from 0.01 to 100 with at most two decimals, got {repr(given)[:64]}"
    )


def _number(table: Mapping[str, Any], key: str, usual: float, least: float, most: float) -> float:
    given = table.get(key, usual)
    if isinstance(given, int | float) and not isinstance(given, bool) and least <= given <= most:
        return given
    raise InvalidConfig(
        f"{key} is to be a number from {least:g} to {most:g}, got {repr(given)[:64]}"
    )
