"""Which adapters keep a slot, and whose is given away. Pure: knows no tensors and no clock."""

from collections import OrderedDict


class Residency:
    """Slots 1 … `num_slots`. Owned by the engine's thread.

    free ──place──► idle ──use──► used ──end (the last request)──► idle
      ▲              └─make_room (least recently used first)──► free
      └──── drop, once nobody uses it
    """

    def __init__(self, num_slots: int, budget: int | None = None) -> None:
        """`budget`: bytes that those with a slot may take together."""
        self._free = list(range(num_slots, 0, -1))
        self._budget = budget
        self._slots: OrderedDict[str, int] = OrderedDict()
        """The least recently used first."""
        self._sizes: dict[str, int] = {}
        """Of those with a slot."""
        self._adapters: dict[str, str] = {}
        """By request."""
        self._num_requests: dict[str, int] = {}
        self._leaving: set[str] = set()

    def has_free(self, size: int) -> bool:
        """Whether a slot is nobody's, and so are so many bytes."""
        return bool(self._free) and self._fits(size, self._slots)

    def has_room(self, size: int) -> bool:
        """Whether `make_room` would find them."""
        has_slot = bool(self._free) or len(self._num_requests) < len(self._slots)
        return has_slot and self._fits(size, self._num_requests)

    def slot(self, adapter: str) -> int | None:
        """Where it is; None where it has none."""
        return self._slots.get(adapter)

    def make_room(self, size: int) -> list[int]:
        """A free slot and so many bytes, if `has_room`; the slots of those that had to go, which
        nobody uses now."""
        gone = []
        while not self.has_free(size):
            idle = next(each for each in self._slots if each not in self._num_requests)
            gone.append(self._forget(idle))
        return gone

    def place(self, adapter: str, size: int) -> int:
        """A slot that is free."""
        slot = self._slots[adapter] = self._free.pop()
        self._sizes[adapter] = size
        return slot

    def use(self, adapter: str, request_id: str) -> None:
        """A request uses it until `end`."""
        self._adapters[request_id] = adapter
        self._num_requests[adapter] = self._num_requests.get(adapter, 0) + 1
        self._slots.move_to_end(adapter)

    def end(self, request_id: str) -> str:
        """A request has ended; its adapter, if that is to be dropped and can be now."""
        adapter = self._adapters.pop(request_id, "")
        if not adapter:
            return ""
        self._num_requests[adapter] -= 1
        if self._num_requests[adapter]:
            return ""
        del self._num_requests[adapter]
        return adapter if adapter in self._leaving else ""

    def drop(self, adapter: str) -> int | None:
        """Nobody may ask for it any more: the slot that is free now; None while requests use it,
        and where it has none."""
        if adapter in self._num_requests:
            self._leaving.add(adapter)
            return None
        self._leaving.discard(adapter)
        return self._forget(adapter) if adapter in self._slots else None

    def _fits(self, size: int, others: "OrderedDict[str, int] | dict[str, int]") -> bool:
        if self._budget is None:
            return True
        return sum(self._sizes[each] for each in others) + size <= self._budget

    def _forget(self, adapter: str) -> int:
        slot = self._slots.pop(adapter)
        del self._sizes[adapter]
        self._free.append(slot)
        return slot
