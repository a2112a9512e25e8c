"""Which sequences there are, which has which slot, which wait for one, which are idle. Pure.

Every operation costs the same whatever the number of sequences, and slots cost nothing before they
are used: a config may have 2^31 of them. A new sequence looks at each instance.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from trivet.server.scheduling.sequences.sequence import CorrelationId, Sequence, Slot


class _FreeSlots:
    """The free slots of one instance: those that were used before, and all that never were."""

    def __init__(self, instance: int, num_slots: int) -> None:
        self.instance = instance
        self._num_slots = num_slots
        self._returned: list[int] = []
        """A heap. Each is below `_next`."""
        self._next = 0

    @property
    def has_any(self) -> bool:
        """Whether there is a free one."""
        return bool(self._returned) or self._next < self._num_slots

    @property
    def first(self) -> Slot:
        """The free one of the lowest number."""
        return Slot(self._returned[0] if self._returned else self._next, self.instance)

    def take(self) -> Slot:
        """The first, which is not free from now on."""
        slot = self.first
        if self._returned:
            heapq.heappop(self._returned)
        else:
            self._next += 1
        return slot

    def put(self, slot: Slot) -> None:
        """It is free again."""
        heapq.heappush(self._returned, slot.number)


class SequenceTable:
    """The sequences of one model version. Owned by the event loop."""

    def __init__(
        self,
        num_instances: int,
        slots_per_instance: int,
        idle_ns: int,
        is_usable: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """`is_usable`: whether an instance can compute now; one that cannot comes last."""
        self._idle_ns = idle_ns
        self._is_usable = is_usable
        self._free = [_FreeSlots(each, slots_per_instance) for each in range(num_instances)]
        self.num_slots = slots_per_instance * num_instances
        self._by_id: dict[CorrelationId, Sequence] = {}
        self._by_activity: OrderedDict[Sequence, None] = OrderedDict()
        self._backlog: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._by_activity)

    def __iter__(self) -> Iterator[Sequence]:
        """All that are not over, the longest unseen first."""
        return iter(self._by_activity)

    def find(self, sequence_id: CorrelationId) -> Sequence | None:
        """The sequence that a request of this id continues."""
        return self._by_id.get(sequence_id)

    def open(self, sequence_id: CorrelationId, now_ns: int, *, findable: bool = True) -> Sequence:
        """A new sequence: with a slot where one is free, else in the backlog."""
        sequence = Sequence(sequence_id, now_ns)
        if findable:
            self._by_id[sequence_id] = sequence
        self._by_activity[sequence] = None
        sequence.slot = self._take_slot()
        if sequence.slot is None:
            self._backlog.append(sequence)
        return sequence

    def _take_slot(self) -> Slot | None:
        """The first free one, of an instance that can compute if there is any."""
        free = [each for each in self._free if each.has_any]
        usable = [each for each in free if self._is_usable(each.instance)]
        chosen = min(usable or free, key=lambda each: each.first, default=None)
        return None if chosen is None else chosen.take()

    def forget_id(self, sequence: Sequence) -> None:
        """Its END has come: the id is free for a new sequence, while this one's requests run."""
        if self._by_id.get(sequence.id) is sequence:
            del self._by_id[sequence.id]

    def touch(self, sequence: Sequence, now_ns: int) -> None:
        """It has had a request just now."""
        if not sequence.is_over:
            sequence.seen_ns = now_ns
            self._by_activity.move_to_end(sequence)

    def close(self, sequence: Sequence) -> Sequence | None:
        """Ends a sequence; returns the one from the backlog that gets its slot."""
        if sequence.is_over:
            return None
        sequence.is_over = True
        self.forget_id(sequence)
        del self._by_activity[sequence]
        slot, sequence.slot = sequence.slot, None
        return None if slot is None else self._give(slot)

    def _give(self, slot: Slot) -> Sequence | None:
        while self._backlog:
            heir = self._backlog.popleft()
            if not heir.is_over:
                heir.slot = slot
                return heir
        self._free[slot.instance].put(slot)
        return None

    def take_idle(self, now_ns: int) -> list[Sequence]:
        """The sequences that have been idle for too long; close them."""
        idle: list[Sequence] = []
        busy: list[Sequence] = []
        for sequence in self._by_activity:
            if sequence.seen_ns + self._idle_ns > now_ns:
                break
            (busy if sequence.is_busy else idle).append(sequence)
        for sequence in busy:
            self.touch(sequence, now_ns)
        return idle

    def next_idle_ns(self) -> int:
        """When to call `take_idle` next; 0 while there is no sequence."""
        first = next(iter(self._by_activity), None)
        return 0 if first is None else first.seen_ns + self._idle_ns
