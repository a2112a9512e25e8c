"""Which adapters keep a slot, and whose is given away. Pure: knows no tensors and no clock."""

from collections import OrderedDict


class Residency:
    """Slots 1 … `num_slots`. Owned by the engine's thread.

    free ──place──► idle ──use──► used ──end (the last request)──► idle
      ▲              └─place (least recently used first)──► another's
      └──── drop, once nobody uses it
    """

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots, 0, -1))
        self._slots: OrderedDict[str, int] = OrderedDict()
        """The least recently used first."""
        self._adapters: dict[str, str] = {}
        """By request."""
        self._num_requests: dict[str, int] = {}
        self._leaving: set[str] = set()

    @property
    def has_free(self) -> bool:
        """Whether a slot is nobody's."""
        return bool(self._free)

    @property
    def has_room(self) -> bool:
        """Whether `place` would find a slot."""
        return bool(self._free) or len(self._num_requests) < len(self._slots)

    def slot(self, adapter: str) -> int | None:
        """Where it is; None where it has none."""
        return self._slots.get(adapter)

    def place(self, adapter: str) -> int | None:
        """A slot for another adapter, perhaps that of one which nobody uses now; None where all are
        used."""
        if not self._free:
            idle = next((each for each in self._slots if each not in self._num_requests), None)
            if idle is None:
                return None
            self._free.append(self._slots.pop(idle))
        slot = self._slots[adapter] = self._free.pop()
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
        slot = self._slots.pop(adapter, None)
        if slot is not None:
            self._free.append(slot)
        return slot
