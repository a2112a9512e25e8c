"""An encoder in a process of its own, as the server sees it."""

from trivet.backends.api import Batch, CheckedRequest
from trivet.backends.api.encoder import EncoderInfo
from trivet.backends.api.meters import MeterStore
from trivet.backends.encoder.lengths import TextLengths
from trivet.backends.process import Limits, ProcessInstance, Task


class ApartEncoder(ProcessInstance):
    """Batched by the lengths of texts, like one in the server."""

    def __init__(self, task: Task, limits: Limits, store: MeterStore | None = None) -> None:
        super().__init__(task, limits, store)
        info = EncoderInfo.of(task.config)
        assert info is not None, "a complete config has it"
        self._lengths = TextLengths(info)

    @property
    def length_budget(self) -> int:
        """See CostsByLength."""
        return self._lengths.budget

    def length_of(self, request: CheckedRequest) -> int:
        """See CostsByLength."""
        return self._lengths.of(request)

    def execute(self, batch: Batch) -> None:
        """See Instance."""
        super().execute(batch)
        self._lengths.learn(batch)
