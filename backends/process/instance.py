"""An instance in a process of its own, started again by itself when that dies."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trivet.backends.api import (
    Asker,
    Batch,
    Cause,
    InstanceDied,
    LoadFailed,
    ServingError,
    Unavailable,
)
from trivet.backends.api.meters import MeterStore
from trivet.backends.process.backoff import Backoff
from trivet.backends.process.channel import ChannelClosed
from trivet.backends.process.ending import Ending
from trivet.backends.process.session import NotDelivered, Session
from trivet.backends.process.spawn import ChildProcess
from trivet.backends.process.task import Task

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

log = logging.getLogger(__name__)

_EXIT_NOTICE_S = 1.0
"""Between losing the connection to a process and knowing how it ended."""
_MAX_DELIVERIES = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an instance process may take for what."""

    load_timeout_s: float = 600.0
    close_timeout_s: float = 10.0
    restart_wait_s: float = 10.0
    """How long a batch waits for a process that is being restarted."""
    heartbeat_timeout_s: float = 10.0
    """A process that has not been heard for so long is killed."""
    execute_timeout_s: float = 600.0
    """A process that computes one batch for so long is killed."""


class ProcessInstance:
    """An `Instance` that lives in a child process.

    A keeper thread starts the process, reads what it says and starts it again. A small batch is
    sent on the event loop, and its reply read there; what has to be waited for is for the
    instance's own thread. So a batch takes no detour through another thread. `_child` is the last
    process, set by the keeper; `_session` is the one that has loaded the model, None while there is
    none.
    """

    def __init__(self, task: Task, limits: Limits, store: MeterStore | None = None) -> None:
        self._task = task
        self._store = store
        self._limits = limits
        self._model_name = task.config.name
        self._changed = threading.Condition()
        self._child: ChildProcess | None = None
        self._session: Session | None = None
        self._begun: Session | None = None
        """Which one has the batch that `begin` has handed on."""
        self._failure: ServingError | None = None
        self._remembers = _keeps_sequences(task)
        self._last_session: Session | None = None
        """Which one knows the sequences that have begun; None while none can have."""
        self._asker: Asker | None = None
        self._backoff = Backoff()
        self._trouble = ""
        """Why there is no session."""
        self._next_start_s = 0.0
        self._deaths: Counter[Cause] = Counter()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keep {task.name}", daemon=True)

    @classmethod
    def open(
        cls, task: Task, limits: Limits | None = None, store: MeterStore | None = None
    ) -> "ProcessInstance":
        """Starts the process and returns when the model is loaded. Raises LoadFailed. `store`: for
        metrics that the model makes up."""
        instance = cls(task, limits or Limits(), store)
        instance._keeper.start()
        with instance._changed:
            instance._changed.wait_for(lambda: instance._session or instance._failure)
        if instance._failure is not None:
            instance._keeper.join()
            raise instance._failure
        return instance

    @property
    def pid(self) -> int | None:
        """The live process, None while it is being restarted."""
        session = self._session
        return session.child.pid if session else None

    def ask_through(self, asker: Asker) -> None:
        """See AsksFromThreads: what the process asks goes this way."""
        self._asker = asker

    def begin(
        self, batch: Batch, loop: "AbstractEventLoop", replied: Callable[[bool], None]
    ) -> bool:
        """See ComputesElsewhere."""
        session = self._session
        if session is None or (self._remembers and session is not self._last_session):
            return False
        if not session.begin(batch, loop, replied):
            return False
        self._begun = session
        return True

    def execute(self, batch: Batch) -> None:
        """Has the batch computed in the process, or the one completed that has begun; see
        `Instance.execute`.

        Raises InstanceDied when the process dies meanwhile, or is not back in time.
        """
        begun, self._begun = self._begun, None
        session = begun or self._deliver(batch)
        try:
            session.complete(batch)
        except ChannelClosed:
            self._lose(session)
            self._last_session = None
            session.child.exited.wait(_EXIT_NOTICE_S)
            raise self._died(session.child) from None

    def _deliver(self, batch: Batch) -> Session:
        """The session that has been given the batch."""
        for _ in range(_MAX_DELIVERIES):
            session = self._await_session()
            if self._remembers:
                self._check_memory(session)
            try:
                session.deliver(batch)
            except NotDelivered:
                self._lose(session)
            else:
                return session
        raise InstanceDied(f"{self._subject} keeps dying; it is being restarted")

    def is_ready(self) -> bool:
        session = self._session
        return session is not None and session.is_ready

    def trouble(self) -> str:
        """See Supervised."""
        session = self._session
        if session is None:
            return self._trouble
        if session.is_silent:
            return f"{self._subject} shows no sign of life; it is killed after a while"
        return "" if session.is_ready else f"{self._subject} says that it is not ready"

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return self._deaths.copy()

    def close(self) -> None:
        """Lets the model finalize, then ends the process, by force after a limit."""
        self._closing.set()
        if (child := self._child) is not None:
            # It may still be loading.
            child.wake()
        if (session := self._session) is not None:
            try:
                session.close(self._limits.close_timeout_s)
            except ChannelClosed:
                log.debug("%s was gone before it was closed", self._task.name)
        self._keeper.join()

    @property
    def _subject(self) -> str:
        return f"model '{self._model_name}' instance {self._task.name}"

    def _died(self, child: ChildProcess) -> InstanceDied:
        return InstanceDied(
            f"{self._subject} died while executing ({child.ending.text}); it is being restarted"
        )

    def _check_memory(self, session: Session) -> None:
        """Raises InstanceDied where sequences began in a process that died between two batches."""
        last, self._last_session = self._last_session, session
        if last is not None and last is not session:
            raise InstanceDied(
                f"{self._subject} died and was restarted; what it knew of its sequences is lost, "
                "start them again"
            )

    def _await_session(self) -> Session:
        if (session := self._session) is not None:
            return session
        with self._changed:
            self._changed.wait_for(
                lambda: self._session or self._closing.is_set() or self._backoff.is_looping,
                self._limits.restart_wait_s,
            )
            session = self._session
        if session is None and self._backoff.is_looping:
            left_s = max(1.0, self._next_start_s - time.monotonic())
            raise InstanceDied(
                f"{self._subject} has ended {self._backoff.num_failures} times in a row without "
                f"computing anything; the next start is in {left_s:.0f} s",
                retry_after_s=left_s,
            )
        if session is None:
            raise InstanceDied(
                f"{self._subject} died and was not back after {self._limits.restart_wait_s:g} s; "
                "it is being restarted"
            )
        return session

    def _lose(self, session: Session) -> None:
        """The connection is gone: not ready from now on; the keeper sees to the rest."""
        self._trouble = self._trouble or f"{self._subject} is being restarted"
        with self._changed:
            if self._session is session:
                self._session = None
        session.child.finish(_EXIT_NOTICE_S)

    def _keep(self) -> None:
        """The keeper thread: one process after the other until closed."""
        is_first = True
        while not self._closing.is_set():
            error = self._keep_one()
            if error is not None and is_first:
                self._give_up(error)
                return
            is_first = False
            if not self._closing.is_set():
                self._closing.wait(self._next_delay_s(error))

    def _next_delay_s(self, error: ServingError | None) -> float:
        """How long to wait before the next start; says so."""
        delay_s = self._backoff.next_delay_s()
        self._next_start_s = time.monotonic() + delay_s
        assert self._child is not None
        what = f"died ({self._child.ending.text})" if error is None else f"did not start: {error}"
        self._trouble = f"{self._subject} {what}; it is being restarted"
        if self._backoff.is_looping:
            self._trouble += (
                f", after {self._backoff.num_failures} failures in a row in {delay_s:g} s"
            )
        log.error("%s", self._trouble)
        with self._changed:
            # In a loop nobody waits any more.
            self._changed.notify_all()
        return delay_s

    def _give_up(self, error: ServingError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _keep_one(self) -> ServingError | None:
        """Starts a process and serves it to its end; the error if it did not load the model.

        The keeper's door: without a keeper the instance would stay dead, so nothing escapes.
        """
        session = None
        try:
            meters = None if self._store is None else self._store.owned()
            child = self._child = ChildProcess(self._task, meters)
            try:
                opened = child.await_task(self._limits.load_timeout_s, self._closing)
                session = Session(
                    child,
                    lambda: self._asker,
                    is_ready=opened["ready"],
                    execute_timeout_s=self._limits.execute_timeout_s,
                )
                self._publish(session)
                self._serve(session)
            finally:
                child.release()
                if session is not None:
                    self._end(session)
        except ServingError as error:
            return error
        except Exception as error:
            log.exception("the keeper of %s failed", self._subject)
            return LoadFailed(f"{self._subject}: {error!r}")
        return None

    def _publish(self, session: Session) -> None:
        with self._changed:
            self._session = session
            self._changed.notify_all()
        if self._closing.is_set():
            # Closed in between, by someone who saw no process to close.
            session.child.finish(0)

    def _serve(self, session: Session) -> None:
        """Handles what the process says, to its last word."""
        child = session.child
        while not child.exited.is_set():
            message = child.receive(session.poll_timeout_s)
            if message is not None:
                session.handle(message)
            session.tick()
            self._check_pulse(session)
        while (message := child.receive(0)) is not None:
            session.handle(message)

    def _check_pulse(self, session: Session) -> None:
        session.child.look_for_memory_kills()
        limit_s = self._limits.heartbeat_timeout_s
        if session.silent_s > limit_s:
            text = f"no sign of life for {limit_s:g} s, model parameter heartbeat_timeout_s"
            session.child.condemn(Ending(Cause.SILENT, text))

    def _end(self, session: Session) -> None:
        self._trouble = f"{self._subject} died ({session.child.ending.text})"
        with self._changed:
            if self._session is session:
                self._session = None
        if session.has_computed:
            self._backoff.reset()
        if self._closing.is_set():
            session.end(Unavailable(f"{self._subject} was unloaded before its last response"))
        else:
            self._deaths[session.child.ending.cause] += 1
            session.end(self._died(session.child))


def _keeps_sequences(task: Task) -> bool:
    """Whether what a request of a sequence means depends on what the process has seen before."""
    config = task.config
    is_stateful = config.WhichOneof("scheduling_choice") == "sequence_batching"
    return is_stateful and not config.sequence_batching.state
