"""The process's GPUs and what its instances share of each: one pool of pinned memory."""

from functools import cache

from trivet.backends.device.driver import Gpu
from trivet.backends.device.lane import Lane
from trivet.backends.device.pinned import PinnedPool


@cache
def _pool_of(gpu: Gpu) -> PinnedPool:
    return PinnedPool(gpu)


def new_lane(gpu: Gpu) -> Lane:
    """The lane of a new instance on a GPU."""
    return Lane(gpu, _pool_of(gpu))
