"""What an engine has to tell, kept until its step is over: one message for all of it."""

import time
from collections.abc import Callable

from trivet.backends.llm.messages import EndedStep, Message, Output, Outputs
from trivet.backends.llm.scheduling.scheduler import StepPlan


class Outbox:
    """Owned by the engine's thread."""

    def __init__(
        self, send: Callable[[Message], None], stats: Callable[[], dict[str, float]]
    ) -> None:
        """`stats`: the engine's state, told with each message."""
        self._send = send
        self._stats = stats
        self.outputs: list[Output] = []
        """At most one of each request: a message has no order."""
        self.tokens: list[tuple[str, int]] = []
        self.preempted: list[str] = []
        self._steps: list[EndedStep] = []
        self._step_ended_s = 0.0

    def end_step(self, plan: StepPlan, num_started: int, begun_s: float) -> None:
        """A step has been computed now. What was launched behind another began when that ended."""
        now_s = time.monotonic()
        seconds = now_s - max(begun_s, self._step_ended_s)
        self._step_ended_s = now_s
        self._steps.append((plan.num_tokens, num_started, seconds, plan.is_decode))

    def flush(self) -> None:
        """Sends what there is, if there is anything."""
        if self.outputs or self.tokens or self._steps or self.preempted:
            message = Outputs(self.outputs, self._stats(), self.tokens, self._steps, self.preempted)
            self.outputs, self.tokens, self._steps, self.preempted = [], [], [], []
            self._send(message)
