"""Compiles grammars beside the engine's loop: what may take a second, others must not wait for."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trivet.backends.api import BackendFailed, ServingError
from trivet.backends.llm.messages import Submit
from trivet.backends.llm.sampling.sampler import Constraint

log = logging.getLogger(__name__)
STACK_BYTES = 1 << 30
"""Grammars of chained rules make the compiler recurse: the longest that clients may send touch a
quarter of it. Only what is touched takes memory."""
_starting = threading.Lock()


class LearningConstraint(Constraint, Protocol):
    """A grammar on its way through an output."""

    def accept(self, token: int) -> None:
        """The token has been chosen."""


class Grammars(Protocol):
    """Makes a request's constraint, which learns each token that was chosen."""

    def constraint(self, submit: Submit) -> LearningConstraint | None:
        """None for a request without a grammar. May take seconds. Raises ServingError."""

    def close(self) -> None:
        """No constraint is wanted any more."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a request's grammar."""

    submit: Submit
    constraint: LearningConstraint | None
    error: ServingError | None


class GrammarCompiler:
    """One grammar after the other, in a thread that is there while there is something to do."""

    def __init__(self, grammars: Grammars, done: Callable[[Compiled], None]) -> None:
        """`done` is called in that thread."""
        self._grammars = grammars
        self._done = done
        self._lock = threading.Lock()
        self._waiting: deque[Submit] = deque()
        self._is_running = False

    def compile(self, submit: Submit) -> None:
        """Returns at once."""
        with self._lock:
            self._waiting.append(submit)
            if self._is_running:
                return
            self._is_running = True
        start_deep_thread(self._run, "grammars")

    def close(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._waiting.clear()
        self._grammars.close()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                submit = self._waiting.popleft()
            self._done(self._compiled(submit))

    def _compiled(self, submit: Submit) -> Compiled:
        try:
            return Compiled(submit, self._grammars.constraint(submit), None)
        except ServingError as error:
            return Compiled(submit, None, error)
        except Exception:
            log.exception("compiling a grammar failed")
            text = "its grammar could not be compiled; the server log has the details"
            return Compiled(submit, None, BackendFailed(text))


def start_deep_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A thread with room for deep recursion."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread
