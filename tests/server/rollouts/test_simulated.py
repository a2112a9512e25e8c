"""Roll-outs by the thousand, with a fake clock: whom they take back, and how soon.

All roll-outs of a test are one array of random numbers, seeded: a window is two seconds of a step,
with the requests that a split of 200 a second gives.
"""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from trivet.server.rollouts.evidence import Counted
from trivet.server.rollouts.guards import guard_of
from trivet.server.rollouts.machine import Phase, Rollout, Window
from trivet.server.rollouts.policy import Policy

RATE = 200
BAKE_S = 300
WINDOW_S = 2
"""As long as a look may take: with more of them a test takes longer and sees the same."""
SIGMA = 0.5
MANY = 1000
FEW = 20
POLICY = Policy(bake_s=BAKE_S, guards=tuple(guard_of(n, 0.0) for n in ("errors", "p50", "p99")))
Numbers = npt.NDArray[np.int64]
"""Of each step and window."""


def exceeding(quantile: float, slower: float) -> float:
    """How many values of a lognormal distribution that is stretched are above a quantile of it."""
    normal = NormalDist()
    return 1 - normal.cdf(normal.inv_cdf(quantile) - np.log(slower) / SIGMA)


def simulated(count: int, seed: int, *, errors: float = 0.01, slower: float = 1.0) -> list[Rollout]:
    """Roll-outs whose candidate has so many errors, and takes so much longer."""
    random = np.random.default_rng(seed)
    windows = BAKE_S // WINDOW_S
    shape = (count, len(POLICY.steps), windows)
    parts = np.array(POLICY.steps)[None, :, None] / 10_000
    rates = {
        "errors": (errors, 0.01),
        "p50": (exceeding(0.5, slower), 0.5),
        "p99": (exceeding(0.99, slower), 0.01),
    }
    asked = np.full(shape, RATE * WINDOW_S)
    mine = random.binomial(asked, np.broadcast_to(parts, shape))
    drawn = {
        name: (random.binomial(mine, worse), random.binomial(asked - mine, usual))
        for name, (worse, usual) in rates.items()
    }
    return [
        one(
            mine[n],
            asked[n],
            {name: (worse[n], usual[n]) for name, (worse, usual) in drawn.items()},
        )
        for n in range(count)
    ]


def one(mine: Numbers, asked: Numbers, drawn: dict[str, tuple[Numbers, Numbers]]) -> Rollout:
    """The one that these requests and events give."""
    rollout = Rollout(POLICY, 1, 2)
    rollout.begin()
    flat = {
        name: (worse.ravel().tolist(), usual.ravel().tolist())
        for name, (worse, usual) in drawn.items()
    }
    requests = zip(mine.ravel().tolist(), asked.ravel().tolist(), strict=True)
    for index, (own, total) in enumerate(requests):
        seen = {
            name: (Counted(own, worse[index]), Counted(total - own, usual[index]))
            for name, (worse, usual) in flat.items()
        }
        rollout.look(WINDOW_S, Window(own, seen))
        if rollout.is_ended:
            break
    return rollout


def found_by(rollouts: list[Rollout], step: int) -> float:
    """The part of them that was taken back in this step or before."""
    return sum(r.phase is Phase.ROLLED_BACK and r.step <= step for r in rollouts) / len(rollouts)


COUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]
"""A few of them each time, all of them with the slow tests."""


@pytest.mark.parametrize("count", COUNTS)
def test_equal_versions_are_hardly_ever_taken_back(count: int) -> None:
    ended = simulated(count, seed=17)

    assert sum(r.phase is Phase.ROLLED_BACK for r in ended) <= count / 100
    assert all(r.phase in (Phase.PROMOTED, Phase.ROLLED_BACK) for r in ended)


@pytest.mark.parametrize("count", COUNTS)
def test_three_times_the_errors_are_found_within_the_first_two_steps(count: int) -> None:
    assert found_by(simulated(count, seed=18, errors=0.03), step=1) >= 0.99


@pytest.mark.parametrize("count", COUNTS)
def test_latencies_that_are_a_third_longer_are_found_by_the_third_step(count: int) -> None:
    ended = simulated(count, seed=19, slower=1.3)

    assert found_by(ended, step=2) >= 0.99
