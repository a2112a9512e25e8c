"""Counts the requests of models that bring their own executor."""

from trivet.backends.api import CopyKind, ServingError
from trivet.server.scheduling.answers import reason_for
from trivet.server.scheduling.statistics import ModelStatistics


class StatisticsObserver:
    """The `Observer` over a version's statistics. A request of such a model never waits: what it
    takes is computing, and it is an execution of its own."""

    def __init__(self, statistics: ModelStatistics) -> None:
        self._statistics = statistics

    def succeeded(self, batch_size: int, total_ns: int) -> None:
        self._statistics.computed_alone(batch_size, total_ns)

    def failed(self, error: ServingError, total_ns: int) -> None:
        self._statistics.failure(reason_for(error), total_ns)

    def first_response(self, elapsed_ns: int) -> None:
        self._statistics.first_response(elapsed_ns)

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        self._statistics.copied_bytes[kind] += size_bytes

    def synchronised(self, count: int) -> None:
        self._statistics.host_synchronisations += count
