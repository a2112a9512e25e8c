"""An instance in a process of its own, started again by itself when that dies."""

import logging
import threading
from dataclasses import dataclass

from trivet.backends.api import Asker, Batch, InstanceDied, LoadFailed, ServingError, Unavailable
from trivet.backends.process.backoff import Backoff
from trivet.backends.process.channel import ChannelClosed
from trivet.backends.process.session import NotDelivered, Session
from trivet.backends.process.spawn import ChildProcess
from trivet.backends.process.task import Task

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


class ProcessInstance:
    """An `Instance` that lives in a child process.

    A keeper thread starts the process, reads what it says and starts it again; the instance's own
    thread sends batches and reads their replies itself, so that a batch takes no detour through
    another thread. `_child` is the last process, set by the keeper; `_session` is the one that has
    loaded the model, None while there is none.
    """

    def __init__(self, task: Task, limits: Limits) -> None:
        self._task = task
        self._limits = limits
        self._model_name = task.config.name
        self._changed = threading.Condition()
        self._child: ChildProcess | None = None
        self._session: Session | None = None
        self._failure: ServingError | None = None
        self._remembers = _keeps_sequences(task)
        self._last_session: Session | None = None
        """Which one knows the sequences that have begun; None while none can have."""
        self._asker: Asker | None = None
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keep {task.name}", daemon=True)

    @classmethod
    def open(cls, task: Task, limits: Limits | None = None) -> "ProcessInstance":
        """Starts the process and returns when the model is loaded. Raises LoadFailed."""
        instance = cls(task, limits or Limits())
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

    def execute(self, batch: Batch) -> None:
        """Has the batch computed in the process; see `Instance.execute`.

        Raises InstanceDied when the process dies meanwhile, or is not back in time.
        """
        for _ in range(_MAX_DELIVERIES):
            session = self._await_session()
            if self._remembers:
                self._check_memory(session)
            try:
                session.run(batch)
            except NotDelivered:
                self._lose(session)
            except ChannelClosed:
                self._lose(session)
                self._last_session = None
                session.child.exited.wait(_EXIT_NOTICE_S)
                raise self._died(session.child) from None
            else:
                return
        raise InstanceDied(f"{self._subject} keeps dying; it is being restarted")

    def is_ready(self) -> bool:
        session = self._session
        return session is not None and session.is_ready

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
            f"{self._subject} died while executing ({child.exit_text}); it is being restarted"
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
        limit_s = self._limits.restart_wait_s
        with self._changed:
            self._changed.wait_for(lambda: self._session or self._closing.is_set(), limit_s)
            session = self._session
        if session is None:
            raise InstanceDied(
                f"{self._subject} died and was not back after {limit_s:g} s; it is being restarted"
            )
        return session

    def _lose(self, session: Session) -> None:
        """The connection is gone: not ready from now on; the keeper sees to the rest."""
        with self._changed:
            if self._session is session:
                self._session = None
        session.child.finish(_EXIT_NOTICE_S)

    def _keep(self) -> None:
        """The keeper thread: one process after the other until closed."""
        backoff = Backoff()
        is_first = True
        while not self._closing.is_set():
            error = self._keep_one(backoff)
            if error is not None and is_first:
                self._give_up(error)
                return
            if error is not None and not self._closing.is_set():
                log.error("%s could not be restarted: %s", self._subject, error)
            is_first = False
            self._closing.wait(backoff.next_delay_s())

    def _give_up(self, error: ServingError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _keep_one(self, backoff: Backoff) -> ServingError | None:
        """Starts a process and serves it to its end; the error if it did not load the model.

        The keeper's door: without a keeper the instance would stay dead, so nothing escapes.
        """
        session = None
        try:
            child = self._child = ChildProcess(self._task)
            try:
                opened = child.await_task(self._limits.load_timeout_s, self._closing)
                session = Session(child, lambda: self._asker, is_ready=opened["ready"])
                self._publish(session)
                self._serve(session)
            finally:
                child.release()
                if session is not None:
                    self._end(session, backoff)
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
        while (message := child.receive(0)) is not None:
            session.handle(message)

    def _end(self, session: Session, backoff: Backoff) -> None:
        with self._changed:
            if self._session is session:
                self._session = None
        if session.has_computed:
            backoff.reset()
        if self._closing.is_set():
            session.end(Unavailable(f"{self._subject} was unloaded before its last response"))
        else:
            exit_text = session.child.exit_text
            log.error("%s died (%s); restarting it", self._subject, exit_text)
            session.end(self._died(session.child))


def _keeps_sequences(task: Task) -> bool:
    """Whether what a request of a sequence means depends on what the process has seen before."""
    config = task.config
    is_stateful = config.WhichOneof("scheduling_choice") == "sequence_batching"
    return is_stateful and not config.sequence_batching.state
