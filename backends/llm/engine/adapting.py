"""Adapters as the engine has them: who is let in, who waits for a slot, what is read from disk."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trivet.backends.api import (
    BackendFailed,
    LoadFailed,
    ServingError,
    Unavailable,
    UnreadableFiles,
    judged,
)
from trivet.backends.llm.adapters.adapter import Adapter
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.adapters.reading import read_files
from trivet.backends.llm.adapters.residency import Residency
from trivet.backends.llm.messages import AdapterRead, LoadAdapter, Message, Submit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadAdapter:
    """What came of reading an adapter's folder."""

    key: str
    adapter: Adapter | None
    error: ServingError | None


Read = Callable[[LoadAdapter], Adapter]
"""Raises a ServingError."""
Stamps = tuple[tuple[int, int, int], ...]


class Reader(Protocol):
    """Reads adapters beside the engine's loop."""

    def read(self, wanted: LoadAdapter) -> None:
        """Returns at once."""

    def close(self) -> None:
        """Nobody waits any more."""


class AdapterReader:
    """Reads one adapter after the other, in a thread that ends with the engine."""

    def __init__(self, read: Read, done: Callable[[ReadAdapter], None]) -> None:
        """`done` is called in that thread."""
        self._read = read
        self._done = done
        self._wanted: queue.SimpleQueue[LoadAdapter | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def read(self, wanted: LoadAdapter) -> None:
        """Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)
            self._thread.start()
        self._wanted.put(wanted)

    def close(self) -> None:
        """Nobody waits any more."""
        if self._thread is not None:
            self._wanted.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            adapter, error = None, None
            try:
                adapter = self._read(wanted)
            except ServingError as reason:
                error = reason
            except Exception as reason:
                log.exception("adapter '%s' cannot be read", wanted.name)
                text = f"it cannot be read ({type(reason).__name__}); the server log has more"
                error = LoadFailed(text)
            self._done(ReadAdapter(wanted.key, adapter, error))


class Slots(Protocol):
    """Where adapters are computed from."""

    def put(self, slot: int, adapter: Adapter) -> None:
        """An adapter can be computed from now on."""

    def drop(self, slot: int) -> None:
        """Nobody asks for it any more."""


class AdapterDesk:
    """Owned by the engine's thread.

    A request of an adapter is let in once that has a slot. Those that wait for one are let in by
    their arrival, and no request of an adapter passes them: one that is asked for all the time
    would keep its slot from all others. Requests of the base alone pass.
    """

    def __init__(
        self,
        slots: Slots | str,
        residency: Residency,
        reader: Reader,
        send: Callable[[Message], None],
    ) -> None:
        """`slots`: or why there are none."""
        self._slots = slots
        self._residency = residency
        self._reader = reader
        self._send = send
        self._known: dict[str, LoadAdapter] = {}
        self._reading: set[str] = set()
        self._read: dict[str, Stamps] = {}
        """Those that were read, and what of: read again, they must be the same."""
        self._sizes: dict[str, int] = {}
        """Their bytes."""
        self._waiting: deque[Submit] = deque()

    @property
    def num_waiting(self) -> int:
        """Requests that are not let in yet."""
        return len(self._waiting)

    def load(self, wanted: LoadAdapter) -> None:
        """Requests will ask for an adapter."""
        if isinstance(self._slots, str):
            self._send(AdapterRead(wanted.key, f"no adapter can be served: {self._slots}"))
            return
        self._known[wanted.key] = wanted
        self._start(wanted.key)

    def unload(self, key: str) -> list[tuple[Submit, ServingError]]:
        """No further request asks for it; those that wait for its slot cannot have it."""
        wanted = self._known.pop(key, None)
        if wanted is None:
            return []
        self._read.pop(key, None)
        self._sizes.pop(key, None)
        self._drop(key)
        gone = Unavailable(f"adapter '{wanted.name}' was unloaded while the request waited for it")
        return self._refused(key, gone)

    def admit(self, submit: Submit) -> bool:
        """Whether a request goes on now; otherwise it is kept. Raises Unavailable for an adapter
        that is not there: it was replaced while the prompt was read, perhaps."""
        key = submit.adapter
        if key not in self._known:
            raise Unavailable("the adapter that was asked for is not loaded any more")
        if not self._waiting and self._residency.slot(key) is not None:
            self._residency.use(key, submit.id)
            return True
        self._waiting.append(submit)
        self._call_next()
        return False

    def slot_of(self, submit: Submit) -> int:
        """Of a request that was let in."""
        return self._residency.slot(submit.adapter) or 0 if submit.adapter else 0

    def take(self, read: ReadAdapter) -> list[tuple[Submit, ServingError]]:
        """What was read; the requests that fail with it. `let_in` follows."""
        self._reading.discard(read.key)
        if read.key not in self._known:  # unloaded meanwhile
            return []
        error, adapter = read.error, read.adapter
        is_first = read.key not in self._read
        if adapter is None:
            pass
        elif self._read.setdefault(read.key, adapter.files.stamps) != adapter.files.stamps:
            error = LoadFailed("its files are others than were loaded; they are loaded anew")
        else:
            self._place(read.key, adapter, only_free=is_first)
        if is_first:
            self._answer(read)
        if error is None:
            return []
        name = self._known[read.key].name
        if is_first:
            del self._known[read.key]
        return self._refused(read.key, BackendFailed(f"adapter '{name}': {error.message}"))

    def let_in(self) -> list[Submit]:
        """Those whose turn it is."""
        admitted = []
        while self._waiting and self._residency.slot(self._waiting[0].adapter) is not None:
            submit = self._waiting.popleft()
            self._residency.use(submit.adapter, submit.id)
            admitted.append(submit)
        self._call_next()
        return admitted

    def end(self, request_id: str) -> bool:
        """A request has ended; whether another one may be let in for it."""
        leaving = self._residency.end(request_id)
        if leaving:
            self._drop(leaving)
        return bool(self._waiting)

    def abort(self, request_id: str) -> None:
        """Nobody waits for a request any more."""
        if self._waiting:
            self._waiting = deque(each for each in self._waiting if each.id != request_id)

    def close(self) -> None:
        """Ends what runs beside the engine."""
        self._reader.close()

    def _answer(self, read: ReadAdapter) -> None:
        if read.error is not None:
            is_unreadable = isinstance(judged(read.error), UnreadableFiles)
            self._send(AdapterRead(read.key, read.error.message, is_unreadable))
        elif read.adapter is not None:
            self._send(AdapterRead(read.key, vocabulary_size=read.adapter.vocabulary_size))

    def _call_next(self) -> None:
        """Has the adapter read that is waited for first, once there is room."""
        if self._waiting:
            key = self._waiting[0].adapter
            has_room = self._residency.has_room(self._sizes.get(key, 0))
            if self._residency.slot(key) is None and has_room:
                self._start(key)

    def _start(self, key: str) -> None:
        if key not in self._reading:
            self._reading.add(key)
            self._reader.read(self._known[key])

    def _place(self, key: str, adapter: Adapter, *, only_free: bool) -> None:
        """One that nobody has asked for yet takes no other's slot."""
        assert not isinstance(self._slots, str)
        residency, size = self._residency, adapter.nbytes
        self._sizes[key] = size
        is_wanted = bool(self._waiting) and self._waiting[0].adapter == key
        if residency.slot(key) is not None or (
            only_free and not is_wanted and not residency.has_free(size)
        ):
            return
        if residency.has_room(size):
            for gone in residency.make_room(size):
                self._slots.drop(gone)
            self._slots.put(residency.place(key, size), adapter)

    def _refused(self, key: str, error: ServingError) -> list[tuple[Submit, ServingError]]:
        failed = [each for each in self._waiting if each.adapter == key]
        if failed:
            self._waiting = deque(each for each in self._waiting if each.adapter != key)
        return [(each, error) for each in failed]

    def _drop(self, key: str) -> None:
        slot = self._residency.drop(key)
        if slot is not None and not isinstance(self._slots, str):
            self._slots.drop(slot)


MakeAdapters = Callable[[Callable[[ReadAdapter], None]], AdapterDesk]
"""Given where what was read goes to."""


def no_adapters(inbox: Callable[[ReadAdapter], None]) -> AdapterDesk:
    """Of an engine whose model takes none."""
    return make_desk("it takes none", 0)(inbox)


def make_desk(
    bank: AdapterBank | str,
    num_slots: int,
    send: Callable[[Message], None] = lambda _: None,
    slots: Slots | None = None,
) -> MakeAdapters:
    """Over the adapters of a model. `slots`: of all ranks, where there are several."""

    def read(wanted: LoadAdapter) -> Adapter:
        assert isinstance(bank, AdapterBank)  # else nothing is read
        return bank.read(read_files(Path(wanted.folder)))

    budget = bank.budget if isinstance(bank, AdapterBank) else None
    residency = Residency(num_slots, budget)
    return lambda inbox: AdapterDesk(slots or bank, residency, AdapterReader(read, inbox), send)
