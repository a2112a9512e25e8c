"""Fakes: an instance that holds until told, a sink that counts its ends, makers of small things."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from patience import patience

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    DataType,
    InferResponse,
    ServingError,
    Signature,
    Tensor,
    TensorSpec,
)


class HeldInstance:
    """Doubles its input once it is released; remembers the batches it was given."""

    def __init__(self, *, held: bool = False, error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.error = error
        self.is_closed = False
        self._gate = threading.Event()
        if not held:
            self._gate.set()

    def release(self) -> None:
        self._gate.set()

    def execute(self, batch: Batch) -> None:
        self.batches.append([request.id for request in batch.requests])
        self.started.release()
        assert self._gate.wait(patience()), "the test never released the instance"
        if self.error is not None:
            raise self.error
        values = batch.gather("IN")
        assert values is not None
        batch.scatter("OUT", values * 2)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True


@dataclass
class CountingSink:
    """Keeps what it is sent and asserts that there is exactly one end."""

    responses: list[InferResponse] = field(default_factory=list)
    error: ServingError | None = None
    ends: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    on_end: Callable[[], None] = lambda: None

    def send(self, response: InferResponse, *, final: bool) -> None:
        self.responses.append(response)
        if final:
            self._end()

    def finish(self) -> None:
        self._end()

    def fail(self, error: ServingError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        self.ends += 1
        assert self.ends == 1, "a request ended twice"
        self.ended.set()
        self.on_end()

    async def wait(self) -> None:
        await asyncio.wait_for(self.ended.wait(), patience())


def make_signature(
    *, max_batch_size: int = 8, dims: tuple[int, ...] = (2,), decoupled: bool = False
) -> Signature:
    def spec(name: str) -> TensorSpec:
        return TensorSpec(name, DataType.FP32, dims, dims)

    return Signature({"IN": spec("IN")}, {"OUT": spec("OUT")}, max_batch_size, decoupled)


def make_request(
    name: str = "", rows: int = 1, width: int = 2, value: float = 1.0, **fields: Any
) -> CheckedRequest:
    """With these fields, and the others as they are without a wish."""
    data = np.full((rows, width), value, dtype=np.float32)
    return CheckedRequest("m", 1, name, {"IN": Tensor.of("IN", data)}, batch_size=rows, **fields)
