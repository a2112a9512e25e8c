"""The embeddings of images that requests have, and the ids by which the scheduler knows them. An
image's rows have ids of their own, so that a cached block is found again only by the same image."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

FIRST_ID = 1 << 40
"""Ids from here on are rows of images; those of tokens are far below."""
_ROW_BITS = 20
_MAX_SERIALS = 1 << 16
Key = tuple[str, bytes]
"""Whose an image is, as far as caches go, and the digest of its file."""


@dataclass(slots=True, eq=False)
class HeldImage:
    """An image of a request, or of several."""

    key: Key
    serial: int
    num_rows: int
    num_leases: int = 0
    rows: Tensor | None = None
    """[rows, width] on the host; None until it has been looked at."""

    def ids(self) -> range:
        """Of its rows."""
        first = FIRST_ID + (self.serial << _ROW_BITS)
        return range(first, first + self.num_rows)


class Embeddings:
    """Owned by the engine's thread. Images that are leased stay; others, as long as there is room,
    for the next turn of a conversation."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._num_rows = 0
        self._num_leased = 0
        """Rows."""
        self._held: dict[Key, HeldImage] = {}
        self._by_serial: dict[int, HeldImage] = {}
        self._idle: OrderedDict[Key, None] = OrderedDict()
        self._serials: OrderedDict[Key, int] = OrderedDict()
        self._num_serials = 0

    @property
    def num_leased(self) -> int:
        """Rows of images that requests have."""
        return self._num_leased

    @property
    def num_rows(self) -> int:
        """All."""
        return self._num_rows

    def fits(self, wanted: dict[Key, int]) -> bool:
        """Whether there is room for these images and their rows besides all that are leased; for
        whoever would be alone there always is."""
        new = sum(
            rows
            for key, rows in wanted.items()
            if key not in self._held or not self._held[key].num_leases
        )
        return not self._num_leased or self._num_leased + new <= self._max_rows

    def lease(self, key: Key, num_rows: int) -> HeldImage:
        """An image that stays until it is released as often as it was leased."""
        image = self._held.get(key)
        if image is None:
            image = HeldImage(key, self._serial_of(key), num_rows)
            self._held[key] = self._by_serial[image.serial] = image
            self._num_rows += num_rows
        if not image.num_leases:
            self._idle.pop(key, None)
            self._num_leased += image.num_rows
        image.num_leases += 1
        self._make_room()
        return image

    def disown(self, image: HeldImage) -> None:
        """It cannot be looked at: whoever leases the like of it gets another."""
        self._drop(image)

    def release(self, image: HeldImage) -> None:
        """One of its requests has ended."""
        image.num_leases -= 1
        if image.num_leases:
            return
        self._num_leased -= image.num_rows
        if image.rows is None:
            self._drop(image)
        else:
            self._idle[image.key] = None
            self._make_room()

    def rows(self, ids: np.ndarray) -> Tensor:
        """The rows of these ids, [ids, width], in their order."""
        places = ids - FIRST_ID
        serials, offsets = places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)
        starts = [0, *(np.flatnonzero(np.diff(serials)) + 1), len(ids)]
        parts = []
        for start, end in pairwise(starts):
            rows = self._by_serial[int(serials[start])].rows
            assert rows is not None, "a request is let in when its images have been looked at"
            parts.append(rows[torch.from_numpy(offsets[start:end])])
        return torch.cat(parts)

    def _serial_of(self, key: Key) -> int:
        serial = self._serials.pop(key, None)
        if serial is None:
            serial = self._num_serials
            self._num_serials += 1
        self._serials[key] = serial
        if len(self._serials) > _MAX_SERIALS:
            self._serials.popitem(last=False)
        return serial

    def _make_room(self) -> None:
        while self._num_rows > self._max_rows and self._idle:
            key, _ = self._idle.popitem(last=False)
            self._drop(self._held[key])

    def _drop(self, image: HeldImage) -> None:
        if self._held.get(image.key) is image:
            del self._held[image.key], self._by_serial[image.serial]
            self._num_rows -= image.num_rows
