"""Instances on a GPU stage what crosses the border as their config says."""

import numpy as np
import pytest
from device_twin import TwinDevice

from trivet.backends.device.gpus import new_lane, pinned_memory
from trivet.protos.model_config_pb2 import ModelConfig


@pytest.mark.parametrize(("is_off", "grows"), [(True, False), (False, True)])
def test_a_model_may_do_without_pinned_memory(*, is_off: bool, grows: bool) -> None:
    config = ModelConfig()
    if is_off:
        config.optimization.input_pinned_memory.enable = False
    lane = new_lane(TwinDevice(), config)
    before = pinned_memory().total_bytes
    staged = lane._pool.take(np.dtype(np.float32), (1024,))
    assert staged.shape == (1024,)
    assert (pinned_memory().total_bytes > before) is grows
    lane.close()
