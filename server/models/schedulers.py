"""Which scheduler a config asks for: its queue and its policy."""

from dataclasses import replace

from trivet.backends.api.signature import compute_batch_size
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.scheduling.batching import Schedule
from trivet.server.scheduling.dispatch import PLAIN, Dispatch
from trivet.server.scheduling.policy import BatchPolicy, OneByOne
from trivet.server.scheduling.queue import LevelPolicy, QueuePolicy, RequestQueue


def schedule_of(
    config: ModelConfig, default_queue_size: int, dispatch: Dispatch = PLAIN
) -> Schedule:
    """The dynamic batcher's schedule, or the default one: each request alone, in order.

    `default_queue_size` requests may wait per priority level where the config does not say (0:
    any number).
    """
    if config.WhichOneof("scheduling_choice") != "dynamic_batching":
        return Schedule(
            RequestQueue(QueuePolicy({0: LevelPolicy(default_queue_size)})),
            OneByOne(),
            dispatch=replace(dispatch, hold_until=0),
        )
    batching = config.dynamic_batching
    batches = config.max_batch_size > 0
    return Schedule(
        RequestQueue(QueuePolicy.from_config(batching, default_queue_size)),
        BatchPolicy.from_config(batching, compute_batch_size(config)) if batches else OneByOne(),
        batching.preserve_ordering,
        dispatch,
        part_size=0 if config.model_transaction_policy.decoupled else compute_batch_size(config),
    )
