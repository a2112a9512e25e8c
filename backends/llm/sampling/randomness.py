"""Uniform numbers that depend on a seed and a position and on nothing else. Pure.

A request's numbers must be the same alone and in a batch, before and after a preemption, so they
are a function instead of a generator's state. The function is SplitMix64 (Steele, Lea, Flood: Fast
Splittable Pseudorandom Number Generators, 2014), applied to the seed and then to seed + position.
"""

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


def uniform(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64, one for each pair of uint64 seed and position."""
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(seeds.astype(np.uint64)) + positions.astype(np.uint64) * _GAMMA)
    numbers: np.ndarray = (mixed >> np.uint64(11)).astype(np.float64) * _TO_UNIT
    return numbers


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + _GAMMA
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    mixed: np.ndarray = state ^ (state >> np.uint64(31))
    return mixed
