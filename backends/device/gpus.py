"""The process's GPUs and what its instances share of each: one pool of pinned memory."""

from functools import cache

from trivet.backends.device.driver import Gpu
from trivet.backends.device.lane import Lane
from trivet.backends.device.pinned import PinnedPool, PinnedState
from trivet.protos.model_config_pb2 import ModelConfig

_pools: list[PinnedPool] = []
"""Of all GPUs in use, for the metrics page."""


@cache
def _unpinned(gpu: Gpu) -> PinnedPool:
    """For models whose config does without pinned memory."""
    return PinnedPool(gpu, 0)


@cache
def _pool_of(gpu: Gpu) -> PinnedPool:
    _pools.append(PinnedPool(gpu))
    return _pools[-1]


def pinned_memory() -> PinnedState:
    """What all pools have and lend out."""
    return PinnedState(
        sum(pool.state.total_bytes for pool in _pools), sum(p.state.used_bytes for p in _pools)
    )


def new_lane(gpu: Gpu, config: ModelConfig | None = None) -> Lane:
    """The lane of a new instance on a GPU."""
    if config is None:
        return Lane(gpu, _pool_of(gpu))
    given = config.optimization
    pools = [
        _unpinned(gpu) if given.HasField(name) and not wanted.enable else _pool_of(gpu)
        for name, wanted in (
            ("input_pinned_memory", given.input_pinned_memory),
            ("output_pinned_memory", given.output_pinned_memory),
        )
    ]
    return Lane(gpu, *pools, busy_waits=given.cuda.busy_wait_events)
