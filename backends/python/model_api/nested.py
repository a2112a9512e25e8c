"""What user code asks of the server: other models' answers, and loading and unloading.

On whose behalf it asks is known by context: `execute`, and the coroutines that it starts, run in
that of their batch. Threads that user code starts have none: what they ask for has no deadline but
its own, and nobody cancels it.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trivet.backends.api import (
    Asker,
    CheckedRequest,
    InferRequest,
    InferResponse,
    RequestContext,
    ServingError,
)
from trivet.backends.python.model_api.errors import (
    TritonError,
    TritonModelException,
    from_serving_error,
)
from trivet.backends.python.model_api.inbox import Inbox
from trivet.backends.python.model_api.response import InferenceResponse
from trivet.backends.python.model_api.room import Room
from trivet.backends.python.model_api.tensor import InputTensor

if TYPE_CHECKING:
    from concurrent.futures import Future

_Answer = TypeVar("_Answer")
_NOT_NOW = (
    "other models can be asked, loaded and unloaded while this model serves: from execute and what "
    "it starts; not from initialize, finalize or auto_complete_config, and not from threads of a "
    'model that shares the server\'s process (parameter isolation "none")'
)
MOST_KEPT = 2
"""Responses that are enough to know that there is not exactly one."""
MOST_KEPT_RESPONSES, MOST_KEPT_BYTES = 4096, 16 << 20
"""What of a stream's responses, once read, is kept for whoever walks them again."""


@dataclass(frozen=True, slots=True)
class Calling:
    """Who asks."""

    model_name: str
    asker: Asker
    parents: Sequence[CheckedRequest]
    """The requests that are being computed."""


CALLING: ContextVar[Calling] = ContextVar("calling")


class ThreadsCalling:
    """Who asks in threads that user code has started: only a process of one model knows that."""

    def __init__(self) -> None:
        self.calling: Calling | None = None


THREADS = ThreadsCalling()


def current() -> Calling:
    """Who asks now. Raises TritonModelException where nobody may."""
    calling = CALLING.get(None) or THREADS.calling
    if calling is None:
        raise TritonModelException(_NOT_NOW)
    return calling


class _Replies:
    """A sink that makes each response one of user code's; None is the end. Any thread may call."""

    def __init__(self, put: Callable[[InferenceResponse | None], None], room: Room) -> None:
        self._put = put
        self._room = room

    def send(self, response: InferResponse, *, final: bool) -> None:
        outputs = [InputTensor(tensor) for tensor in response.outputs]
        if outputs or response.parameters:
            self._put(InferenceResponse(outputs, parameters=response.parameters))
        else:
            self._room.skip()
        if final:
            self._put(None)

    def finish(self) -> None:
        self._put(None)

    def fail(self, error: ServingError) -> None:
        self._put(InferenceResponse(error=from_serving_error(error)))
        self._put(None)


class Responses:
    """The responses to a nested request, as they come: for `for` and, in coroutines, `async for`.

    Once all have come they can be walked again, as long as they were not too large to keep; `len`
    is how many have come. Let go of before the end, it cancels. For one thread at a time.
    """

    def __init__(self, calling: Calling, request: InferRequest, context: RequestContext) -> None:
        self._cancel = partial(calling.asker.cancel, context)
        self._room = Room(calling.asker, context)
        self._is_over = False
        self._inbox = Inbox()
        self._read = _Read()
        replies = _Replies(self._inbox.put, self._room)
        calling.asker.infer(request, context, calling.parents, replies)

    def __iter__(self) -> Iterator[InferenceResponse]:
        return self._read.again() if self._is_over and len(self._read) else self

    def __next__(self) -> InferenceResponse:
        response = None if self._is_over else self._inbox.get()
        if response is None:
            self._is_over = True
            raise StopIteration
        return self._taken(response)

    def __aiter__(self) -> AsyncIterator[InferenceResponse]:
        return self

    async def __anext__(self) -> InferenceResponse:
        response = None if self._is_over else await self._inbox.wait()
        if response is None:
            self._is_over = True
            raise StopAsyncIteration
        return self._taken(response)

    def __len__(self) -> int:
        return len(self._read)

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Tells the asked model that no further responses are wanted. It ends in its own way, with
        an error or not: what it still sends comes here."""
        if not self._is_over:
            self._cancel()

    def _taken(self, response: InferenceResponse) -> InferenceResponse:
        self._room.read()
        self._read.add(response)
        return response


class _Read:
    """The responses that user code has read, kept for whoever walks them again."""

    def __init__(self) -> None:
        self._kept: list[InferenceResponse] | None = []
        self._num_read = 0
        self._size_bytes = 0

    def __len__(self) -> int:
        return self._num_read

    def add(self, response: InferenceResponse) -> None:
        """Keeps it while all together are small: a stream may be endless."""
        self._num_read += 1
        if self._kept is None:
            return
        self._size_bytes += sum(tensor.size_bytes() for tensor in response.output_tensors())
        if self._size_bytes > MOST_KEPT_BYTES or self._num_read > MOST_KEPT_RESPONSES:
            self._kept = None
        else:
            self._kept.append(response)

    def again(self) -> Iterator[InferenceResponse]:
        """From the first. Raises TritonModelException when they were too large to keep."""
        if self._kept is None:
            raise TritonModelException(
                f"these {self._num_read} responses were read once and are gone: up to "
                f"{MOST_KEPT_RESPONSES} of together {MOST_KEPT_BYTES} bytes can be walked again; "
                "keep them in a list"
            )
        return iter(self._kept)


def only(model_name: str, found: list[InferenceResponse]) -> InferenceResponse:
    """The one response of a model, or why there is not exactly one."""
    if len(found) == 1:
        return found[0]
    count = str(len(found)) if len(found) < MOST_KEPT else f"{MOST_KEPT} or more"
    return InferenceResponse(
        error=TritonError(
            f"model '{model_name}' sent {count} responses; exec() and async_exec() wait for "
            "exactly one: ask with decoupled=True"
        )
    )


def wait(future: "Future[_Answer]") -> _Answer:
    """The outcome of loading or unloading. Raises TritonModelException."""
    try:
        return future.result()
    except ServingError as error:
        raise TritonModelException(error.message) from error
