"""Which requests of an instance's sequences run together: the direct and the oldest strategy. Pure.

A lane is one instance's part. At most one request of a sequence is in a batch, and none while an
earlier one of it runs.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from trivet.protos.model_config_pb2 import ModelSequenceBatching
from trivet.server.scheduling.policy import BatchPolicy, Run, WaitUntil
from trivet.server.scheduling.sequences.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """What runs as one batch: of each sequence its next request; None for a placeholder."""

    positions: list[Sequence | None]


class Lane(Protocol):
    """The ready sequences of one instance."""

    def add(self, sequence: Sequence) -> None:
        """Its first waiting request may run now."""

    def remove(self, sequence: Sequence) -> None:
        """It is over, whether it was ready or not."""

    def decide(self, now_ns: int) -> Step | WaitUntil | None:
        """What to run on the idle instance; None when nothing is ready. A sequence that is in the
        step is not ready any more."""


class DirectLane:
    """Each sequence has its own position in the batch for its whole life. Slots below the highest
    one in use that have nothing to run get placeholders, so that positions stay."""

    def __init__(self, num_slots: int, min_utilization: float, max_delay_ns: int) -> None:
        self._min_ready = min_utilization * num_slots
        self._max_delay_ns = max_delay_ns
        self._held: dict[int, Sequence] = {}
        self._ready: dict[int, Sequence] = {}

    def add(self, sequence: Sequence) -> None:
        """See Lane."""
        assert sequence.slot is not None
        self._held[sequence.slot.number] = sequence
        self._ready[sequence.slot.number] = sequence

    def remove(self, sequence: Sequence) -> None:
        """See Lane."""
        for places in (self._ready, self._held):
            for number in [number for number, each in places.items() if each is sequence]:
                del places[number]

    def decide(self, now_ns: int) -> Step | WaitUntil | None:
        """All ready ones that can be joined with the one that has waited longest. With a least
        utilisation, an emptier batch waits for `max_queue_delay_microseconds`."""
        if not self._ready:
            return None
        oldest = min((each.waiting[0] for each in self._ready.values()), key=lambda t: t.arrived_ns)
        run_at_ns = oldest.arrived_ns + self._max_delay_ns
        if len(self._ready) < self._min_ready and now_ns < run_at_ns:
            return WaitUntil(run_at_ns)
        positions: list[Sequence | None] = [None] * (max(self._held) + 1)
        for number, sequence in list(self._ready.items()):
            if sequence.waiting[0].join_key == oldest.join_key:
                positions[number] = self._ready.pop(number)
        return Step(positions)


class OldestLane:
    """The requests that have been ready longest, whatever their sequences, as dynamic batches."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._ready: OrderedDict[Sequence, None] = OrderedDict()

    def add(self, sequence: Sequence) -> None:
        """See Lane."""
        self._ready[sequence] = None

    def remove(self, sequence: Sequence) -> None:
        """See Lane."""
        self._ready.pop(sequence, None)

    def decide(self, now_ns: int) -> Step | WaitUntil | None:
        """As the dynamic batcher decides about the first requests of the ready sequences."""
        if not self._ready:
            return None
        decision = self._policy.decide([each.waiting[0] for each in self._ready], now_ns)
        if not isinstance(decision, Run):
            return decision
        return Step([self._ready.popitem(last=False)[0] for _ in range(decision.count)])


def slots_per_instance(batching: ModelSequenceBatching, max_batch_size: int) -> int:
    """How many sequences an instance serves at a time."""
    if batching.WhichOneof("strategy_choice") == "oldest":
        return batching.oldest.max_candidate_sequences
    return max(1, max_batch_size)


def make_lane(batching: ModelSequenceBatching, max_batch_size: int) -> Lane:
    """The lane that the config's strategy asks for; direct where it names none."""
    if batching.WhichOneof("strategy_choice") == "oldest":
        oldest, largest = batching.oldest, max(1, max_batch_size)
        sizes = frozenset(oldest.preferred_batch_size) or frozenset({largest})
        return OldestLane(BatchPolicy(largest, sizes, oldest.max_queue_delay_microseconds * 1000))
    direct = batching.direct
    return DirectLane(
        max(1, max_batch_size),
        direct.minimum_slot_utilization,
        direct.max_queue_delay_microseconds * 1000,
    )
