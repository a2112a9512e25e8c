"""The responses of a decoupled step: each begins a wave, and the waves answer in order."""

from collections import deque
from typing import Protocol

from trivet.backends.api import InferResponse, Window
from trivet.ensembles.graph import Step


class StreamRun(Protocol):
    """The request that a stream belongs to."""

    is_over: bool
    max_inflight: int

    @property
    def has_room(self) -> bool:
        """Whether another answer may be sent."""

    def progress(self) -> None:
        """A wave is done or a stream has changed: answers what is in turn."""


class StreamWave(Protocol):
    """A wave with a decoupled step, and each of those that its responses begin."""

    @property
    def is_over(self) -> bool:
        """Whether nothing that still comes matters."""

    @property
    def is_settled(self) -> bool:
        """Whether all steps but the decoupled one have ended."""

    def following(self, step: Step, response: InferResponse) -> "StreamWave":
        """The wave that a response of the decoupled step begins, not started yet."""

    def start(self) -> None:
        """Begins every step that waits for nothing."""

    def take_turn(self) -> bool:
        """Being the one in turn, answers all that has come; returns whether it is over."""

    def release(self) -> None:
        """Lets go of all tensors."""


class Stream:
    """The waves that came of one wave. Runs on the event loop."""

    __slots__ = ("_backlog", "_is_closed", "_run", "_step", "_wave", "_waves", "window")

    def __init__(
        self, run: StreamRun, wave: StreamWave, step: Step, window: Window | None = None
    ) -> None:
        """`window`: what the step's model waits for before it sends more."""
        self._run = run
        self._wave = wave
        self._step = step
        self._waves: deque[StreamWave] = deque()
        self._backlog: deque[InferResponse] = deque()
        """Responses that wait for other steps, or for earlier ones to be answered."""
        self._is_closed = False
        self.window = window

    def came(self, response: InferResponse, *, final: bool) -> None:
        """A response of the step."""
        self._is_closed = self._is_closed or final
        self._backlog.append(response)
        self.admit()
        self._run.progress()

    def close(self) -> None:
        """No further response comes."""
        self._is_closed = True
        self._run.progress()

    def admit(self) -> None:
        """Begins waves for responses that wait, as many as may be on their way."""
        most = self._run.max_inflight
        while self._backlog and self._wave.is_settled and not self._wave.is_over:
            if most and len(self._waves) >= most:
                return
            wave = self._wave.following(self._step, self._backlog.popleft())
            self._waves.append(wave)
            wave.start()

    def take_turn(self) -> bool:
        """Being the one in turn, answers all that has come; returns whether it is over."""
        while self._waves and not self._run.is_over:
            if not self._run.has_room or not self._waves[0].take_turn():
                return False
            if self._run.is_over:
                # Its answer could not be made: all waves have been let go.
                return True
            self._waves.popleft().release()
            if self.window is not None:
                self.window.give()
            self.admit()
        return self._is_closed and not self._backlog and self._wave.is_settled

    def release(self) -> None:
        """Lets go of all tensors; what still comes is not taken."""
        if self.window is not None:
            self.window.open()
        for wave in self._waves:
            wave.release()
        self._waves.clear()
        self._backlog.clear()
