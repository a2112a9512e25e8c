"""Responses that may be asked for later: so many, so many bytes; the least recently used leave
first."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from trivet.backends.api import InvalidRequest, Unavailable
from trivet.server.http.openai.responses.errors import PreviousResponseNotFound, ResponseNotFound

if TYPE_CHECKING:
    from trivet.server.http.openai.responses.background import Background

_RECORD_BYTES = 1024
_ITEM_BYTES = 256
"""What a record and each of its items take beside their texts: objects, ids, places in maps."""


@dataclass(slots=True)
class Record:
    """One response, as JSON: its text is a tenth of the objects that it stands for."""

    id: str
    owner: bytes
    """The key that it was made with; empty where there are none."""
    previous_id: str | None
    input: bytes
    """The list of its own items, each with an id."""
    document: bytes = b""
    """Once it has ended."""
    background: "Background | None" = None
    """Of one that was made in the background: its end is nobody's answer."""

    item_ids: tuple[str, ...] = ()
    """Of its input and output, by which other requests may refer to them."""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.background is not None and not self.background.is_over

    def now(self) -> bytes:
        """Its document as it is now."""
        if self.background is not None and not self.document:
            return orjson.dumps(self.background.document())
        return self.document

    def items(self) -> list[dict[str, Any]]:
        """What a conversation that goes on from it has: its input and its output."""
        found: list[dict[str, Any]] = orjson.loads(self.input)
        return found + list(orjson.loads(self.now())["output"])

    @property
    def size_bytes(self) -> int:
        """What it takes, about."""
        told = 0 if self.background is None else self.background.num_bytes
        ids = _ITEM_BYTES * len(self.item_ids)
        return _RECORD_BYTES + ids + len(self.input) + len(self.document) + told


class ResponseStore:
    """Owned by the event loop. What runs is never evicted."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._records: OrderedDict[str, Record] = OrderedDict()
        """The least recently used first."""
        self._sizes: dict[str, int] = {}
        self._items: dict[tuple[bytes, str], str] = {}
        """The response that holds an item, by its owner and the item's id, which clients choose."""
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def keeps(self) -> bool:
        """Whether it keeps any."""
        return self._max_count > 0 and self._max_bytes > 0

    def put(self, record: Record) -> None:
        """Keeps one, or what it has become, but not one that is larger than all room. Raises
        Unavailable where what runs leaves no room."""
        if record.id not in self._records and record.is_running:
            self._require_room(record)
        size = record.size_bytes
        if size > self._max_bytes and not record.is_running:
            # All others would leave for it, and then it, too.
            self.drop(record)
            return
        self._records[record.id] = record
        self._records.move_to_end(record.id)
        self._measure(record)
        self._items |= {(record.owner, each): record.id for each in record.item_ids}
        self._evict()

    def grow(self, record: Record) -> None:
        """One that runs has become larger: those that have ended make room. Raises Unavailable
        where that is not enough."""
        if not self.has(record):
            return
        self._measure(record)
        self._evict()
        if self.num_bytes > self._max_bytes:
            raise Unavailable(
                f"the responses that run in the background have come to take {self.num_bytes} "
                f"bytes; at most {self._max_bytes} are kept (--response-store-size): ask with a "
                "smaller max_output_tokens, without logprobs, or without background"
            )

    def has(self, record: Record) -> bool:
        """Whether it is kept, still."""
        return record.id in self._records

    def get(self, response_id: str, owner: bytes) -> Record:
        """One that this owner has made. Raises ResponseNotFound."""
        record = self._records.get(response_id)
        if record is None or record.owner != owner:
            raise ResponseNotFound(response_id)
        self._records.move_to_end(response_id)
        return record

    def drop(self, record: Record) -> None:
        """Keeps it no more."""
        if self._records.pop(record.id, None) is not None:
            self.num_bytes -= self._sizes.pop(record.id)
            for each in record.item_ids:
                if self._items.get((record.owner, each)) == record.id:
                    del self._items[record.owner, each]

    def conversation(self, response_id: str | None, owner: bytes) -> list[dict[str, Any]]:
        """The items of a response and of all that it went on from, the oldest first. Raises
        PreviousResponseNotFound, and InvalidRequest for one that has not ended."""
        chain: list[Record] = []
        while response_id is not None:
            try:
                record = self.get(response_id, owner)
            except ResponseNotFound:
                raise PreviousResponseNotFound(response_id) from None
            if record.is_running:
                raise InvalidRequest(f"previous_response_id: {record.id} has not ended yet")
            chain.append(record)
            response_id = record.previous_id
        return [item for record in reversed(chain) for item in record.items()]

    def items(self, ids: Collection[str], owner: bytes) -> dict[str, dict[str, Any]]:
        """Those of these items that are in the owner's responses, by their ids."""
        holders = {self._items[owner, each] for each in ids if (owner, each) in self._items}
        mine = [item for holder in holders for item in self._records[holder].items()]
        return {item["id"]: item for item in mine if item["id"] in ids}

    def _measure(self, record: Record) -> None:
        size = record.size_bytes
        self.num_bytes += size - self._sizes.get(record.id, 0)
        self._sizes[record.id] = size

    def _require_room(self, new: Record) -> None:
        running = [record for record in self._records.values() if record.is_running]
        if len(running) >= self._max_count:
            raise Unavailable(
                f"{self._max_count} responses run in the background, as many as are kept "
                "(--response-store-count); wait for some to end"
            )
        size = new.size_bytes + sum(record.size_bytes for record in running)
        if size > self._max_bytes:
            raise Unavailable(
                f"with this one the responses that run in the background take {size} bytes; at "
                f"most {self._max_bytes} are kept (--response-store-size): wait for some to end, "
                "or give a shorter input"
            )

    def _evict(self) -> None:
        while len(self._records) > self._max_count or self.num_bytes > self._max_bytes:
            oldest = next((each for each in self._records.values() if not each.is_running), None)
            if oldest is None:
                return
            self.drop(oldest)
