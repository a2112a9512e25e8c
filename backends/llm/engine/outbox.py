"""What an engine has to tell, kept until its step is over: one message for all of it."""

import time
from collections.abc import Callable

from trivet.backends.api import ComputedStep
from trivet.backends.llm.messages import Message, Output, Outputs
from trivet.backends.llm.scheduling.plan import StepPlan


class BegunStep:
    """A step under way, and where its time goes."""

    __slots__ = ("begun_s", "forward_s", "has_failed", "num_started", "plan", "planning_s")

    def __init__(self, plan: StepPlan, num_started: int, planning_s: float) -> None:
        """`num_started`: requests that it is the first step of."""
        self.plan = plan
        self.num_started = num_started
        self.planning_s = planning_s
        self.begun_s = time.monotonic()
        self.forward_s: float | None = None
        """In the model; None: on a device that computes by itself, all of it."""
        self.has_failed = False

    def end_forward(self, begun_s: float) -> None:
        """The model began then and has ended; the halves of a step add up."""
        self.forward_s = (self.forward_s or 0.0) + time.monotonic() - begun_s


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
        self._steps: list[ComputedStep] = []
        self._step_ended_s = 0.0

    def end_step(self, step: BegunStep) -> None:
        """A step has been computed now. What was launched behind another began when that ended."""
        now_s = time.monotonic()
        seconds = now_s - max(step.begun_s, self._step_ended_s)
        self._step_ended_s = now_s
        self._steps.append(
            ComputedStep(
                step.plan.num_tokens,
                step.num_started,
                step.plan.is_decode,
                step.has_failed,
                step.planning_s,
                seconds if step.forward_s is None else step.forward_s,
                seconds,
            )
        )

    def flush(self) -> None:
        """Sends what there is, if there is anything."""
        if self.outputs or self.tokens or self._steps or self.preempted:
            message = Outputs(self.outputs, self._stats(), self.tokens, self._steps, self.preempted)
            self.outputs, self.tokens, self._steps, self.preempted = [], [], [], []
            self._send(message)
