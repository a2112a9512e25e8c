"""Runs batches through a LiteRT interpreter, which is laid out anew when the batch size changes.

That costs microseconds: on LiteRT 2.3 a small dense model takes 5 us a batch, and 3 to 16 us more
where its size is another than the last one's.
"""

from trivet.backends.api import Batch, ComputeOnly, Signature
from trivet.backends.tflite.program import Program


class TfLiteInstance(ComputeOnly):
    """One instance, with an interpreter of its own."""

    def __init__(self, program: Program, signature: Signature) -> None:
        self._program: Program | None = program
        self._signature = signature

    def execute(self, batch: Batch) -> None:
        assert self._program is not None, "executed after close"
        gathered = {name: batch.gather(name) for name in self._signature.inputs}
        batch.mark_gathered()
        outputs = self._program.call({n: v for n, v in gathered.items() if v is not None})
        batch.mark_computed()
        for name in self._signature.outputs:
            if batch.wants(name):
                batch.scatter(name, outputs[name])

    def is_ready(self) -> bool:
        return self._program is not None

    def close(self) -> None:
        self._program = None
