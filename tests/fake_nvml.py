"""nvidia-ml-py on cards that the test describes."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

GIB = 1 << 30


@dataclass
class Card:
    """A GPU, or a MIG device, which tells less."""

    uuid: str
    total: int = 80 * GIB
    used: int = 2 * GIB
    name: str = "NVIDIA H100 80GB HBM3"
    is_mig: bool = False
    power_mw: int = 123_000
    utilization: int = 42


class NvmlError(Exception):
    """What the library raises."""


@dataclass
class FakeNvml:
    """The module."""

    cards: list[Card] = field(default_factory=lambda: [Card("GPU-aaaa"), Card("GPU-bbbb")])
    mig: list[Card] = field(default_factory=list)
    """Reached by UUID only."""
    has_driver: bool = True
    NVMLError: Any = NvmlError

    def nvmlInit(self) -> None:
        if not self.has_driver:
            raise NvmlError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        for card in (*self.cards, *self.mig):
            if card.uuid == uuid:
                return card
        raise NvmlError("Not Found")

    def nvmlDeviceGetUUID(self, card: Card) -> str:
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> bytes:
        return card.name.encode()

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Any:
        return SimpleNamespace(total=card.total, used=card.used)

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> Any:
        self._whole(card)
        return SimpleNamespace(gpu=card.utilization)

    def nvmlDeviceGetPowerUsage(self, card: Card) -> int:
        self._whole(card)
        return card.power_mw

    def nvmlDeviceGetEnforcedPowerLimit(self, card: Card) -> int:
        self._whole(card)
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Card) -> int:
        self._whole(card)
        return 5_000_000

    def _whole(self, card: Card) -> None:
        if card.is_mig:
            raise NvmlError("Not Supported")
