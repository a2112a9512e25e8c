"""The process's GPUs and what its instances share of each: one pool of pinned memory."""

from functools import cache

from trivet.backends.device.driver import Gpu
from trivet.backends.device.lane import Lane
from trivet.backends.device.pinned import PinnedPool
from trivet.protos.model_config_pb2 import ModelConfig


@cache
def _pool_of(gpu: Gpu) -> PinnedPool:
    return PinnedPool(gpu)


def new_lane(gpu: Gpu, config: ModelConfig | None = None) -> Lane:
    """The lane of a new instance on a GPU."""
    busy_waits = config is not None and config.optimization.cuda.busy_wait_events
    return Lane(gpu, _pool_of(gpu), busy_waits=busy_waits)
