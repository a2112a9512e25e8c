"""When models sleep, as the options say."""

import psutil

from trivet.backends.device.nvml import Gpus
from trivet.server.models.sleeping.budget import Budget, MemoryTerms, Place
from trivet.server.settings import Settings


def memory_terms(settings: Settings, gpus: Gpus) -> MemoryTerms:
    """Raises InvalidConfig."""

    def room_at(place: Place) -> int:
        if place is None:
            return int(psutil.virtual_memory().total)
        info = gpus.by_number(place)
        return 0 if info is None else gpus.read(info).total_bytes

    budget = Budget.parse(settings.model_memory_budget, room_at)
    return MemoryTerms(budget, settings.idle_unload_s)
