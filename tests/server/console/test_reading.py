"""Counters are read of models that did something, and of no other."""

from collections.abc import Iterable

from http_site import FakeCore

from trivet.backends.device.nvml import Gpus
from trivet.server.console.reading import MachineReader, ModelReader
from trivet.server.scheduling.statistics import BatchTiming, FailureReason, ModelStatistics


class Counting(FakeCore):
    """A core whose models count."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.counted = [ModelStatistics(name, 1) for name in names]

    def all_statistics(self) -> Iterable[ModelStatistics]:
        return self.counted


def test_only_what_did_something_since_is_told() -> None:
    core = Counting("busy", "idle")
    reader = ModelReader(core)
    assert reader.read() == {}
    core.counted[0].success(4, 1000, BatchTiming(1, 2, 3), 2_000_000)
    core.counted[0].execution(4, BatchTiming(1, 2, 3))
    (counts,) = reader.read()["busy"]
    assert (counts.answered, counts.executions, counts.rows) == (1, 1, 4)
    assert reader.read() == {}
    core.counted[1].failure(FailureReason.OTHER, 1000)
    assert [each.failed for each in reader.read()["idle"]] == [1]
    core.shared_memory.close()


def test_requests_that_wait_are_told_as_long_as_they_do() -> None:
    core = Counting("slow")
    core.counted[0].pending = 7
    reader = ModelReader(core)
    for _ in range(2):
        assert [each.waiting for each in reader.read()["slow"]] == [7]
    core.shared_memory.close()


def test_the_machine_tells_of_memory_and_cores() -> None:
    read = MachineReader(Gpus.none("none")).read(1.0)
    assert 0 < read["resident_bytes"] < read["total_bytes"]
    assert read["cores"] >= 0
