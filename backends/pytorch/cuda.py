"""PyTorch on a lane's stream, and its CUDA graphs: the seam between our logic and torch.cuda."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch

from trivet.backends.api import Stream


class TorchGpu(Protocol):
    """What an instance needs of PyTorch on one GPU."""

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        """What the calling thread computes inside goes to the stream."""

    def capture(self, stream: Stream, call: Callable[[], object]) -> tuple[object, "Replay"]:
        """What `call` returned while its work was noted down, and how to do the work again."""

    def forget_unused(self) -> None:
        """Gives memory that PyTorch keeps for later back to the GPU."""


class Replay(Protocol):
    """Does captured work again."""

    def __call__(self) -> None:
        """On the current stream."""


class CudaTorch:
    """The real one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        own = torch.cuda.ExternalStream(stream.handle, self._device)  # type: ignore[no-untyped-call]  # torch's own lack
        return torch.cuda.stream(own)

    def capture(self, stream: Stream, call: Callable[[], object]) -> tuple[object, Replay]:
        with self.on(stream):
            # Libraries set themselves up at the first runs, which no graph can have in it.
            for _ in range(3):
                call()
            torch.cuda.current_stream(self._device).synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other instances of this process go on meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = call()
        return result, graph.replay

    def forget_unused(self) -> None:
        torch.cuda.empty_cache()
