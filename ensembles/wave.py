"""One pass of tensors through the steps of one level. Runs on the event loop.

A request is one wave. Where a step is decoupled, each of its responses begins a further wave of the
steps after it (`stream.py`), and the last ones answer.
"""

from typing import Protocol

from trivet.backends.api import CheckedRequest, InferResponse, ServingError, Tensor, Window
from trivet.ensembles.adapting import adapted
from trivet.ensembles.graph import Step
from trivet.ensembles.plan import Plan
from trivet.ensembles.stream import Stream, StreamRun

CONDITIONAL = ""
"""Why a tensor is absent: a condition said so, which is no fault."""


class Run(StreamRun, Protocol):
    """What a wave needs of the request that it belongs to."""

    plan: Plan
    request: CheckedRequest

    def window(self, step: Step) -> Window | None:
        """For the responses of a decoupled step; None: it never waits."""

    def call(self, wave: "Wave", step: Step, inputs: dict[str, Tensor]) -> None:
        """Asks a step's model; the answers come to the wave."""

    def heard(self, response: InferResponse) -> None:
        """Looks at what a step says of the request's sequence."""

    def respond(self, wave: "Wave") -> None:
        """Sends a wave's answer."""

    def failed(self, error: ServingError) -> None:
        """Ends the request."""


class Wave:
    """The tensors of one pass and what still waits for them."""

    __slots__ = (
        "_level", "_makers_left", "_run", "_running", "_uses", "_waiting", "absent",
        "is_done", "left_out", "number", "started", "stream", "values",
    )  # fmt: skip

    def __init__(
        self, run: Run, number: int, values: dict[str, Tensor], parent: "Wave | None" = None
    ) -> None:
        self._run = run
        self.number = number
        self._level = level = run.plan.levels[number]
        self.values = values
        self.absent: dict[str, str] = {} if parent is None else dict(parent.absent)
        """Tensors that will not come, and why."""
        self.left_out: set[str] = set() if parent is None else set(parent.left_out)
        """Those of them that a step's response was without. A client goes without them, too; a step
        that needs one cannot run."""
        self._waiting = dict(level.waiting)
        self._uses = dict(level.uses)
        self._makers_left = dict(level.makers)
        self.started: set[int] = set() if parent is None else set(parent.started)
        self._running = 0
        self.stream: Stream | None = None
        """The responses of its decoupled step, once that has started."""
        self.is_done = False

    def start(self) -> None:
        """Begins every step that waits for nothing."""
        # Models may answer while they are asked: the wave is not done before all were.
        self._running = 1
        for step in self._level.first:
            if not self.is_over:
                self._begin(step)
        self._end_step()

    def following(self, step: Step, response: InferResponse) -> "Wave":
        """The wave that a response of the decoupled step begins, not started yet."""
        wave = Wave(self._run, self.number + 1, dict(self.values), self)
        wave.absent |= wave.store(step, response)
        return wave

    @property
    def is_over(self) -> bool:
        """Whether nothing that still comes matters."""
        return self.is_done or self._run.is_over

    @property
    def is_settled(self) -> bool:
        """Whether all steps but the decoupled one have ended."""
        return self._running == 0

    def release(self) -> None:
        """Lets go of all tensors, and of what refers back here: nothing is left to the garbage
        collector, whose turns would be felt."""
        self.values.clear()
        self.is_done = True
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.release()

    # -- steps ---------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        """Starts or skips a step of which everything is known that it waits for."""
        try:
            inputs = self._inputs(step)
        except ServingError as error:
            self._run.failed(error)
            return
        if self._uses:
            self._let_go(step)
        if inputs is None:
            return
        if step is self._level.decoupled:
            self.stream = Stream(self._run, self, step, self._run.window(step))
        else:
            self._running += 1
        if self._level.later:
            self.started.add(step.number)
            self._settled_outcome(step)
        self._run.call(self, step, inputs)

    def _inputs(self, step: Step) -> dict[str, Tensor] | None:
        """A step's inputs, or None if it is skipped."""
        if step.earlier and not self.started.isdisjoint(step.earlier):
            self._skipped(step, CONDITIONAL)
            return None
        values = self.values
        if step.when is not None and not step.when.holds(values, self._run.request.parameters):
            self._skipped(step, CONDITIONAL)
            return None
        inputs: dict[str, Tensor] = {}
        for edge in step.inputs:
            tensor = values.get(edge.tensor)
            if tensor is None:
                if edge.name in step.signature.required_inputs:
                    self._skipped(step, self._why_absent(edge.tensor))
                    return None
            elif edge.tensor in step.settings.map:
                # The list's elements get their names and dimensions one by one.
                inputs[edge.name] = tensor
            else:
                inputs[edge.name] = adapted(tensor, edge, edge.name)
        return inputs

    def _why_absent(self, tensor: str) -> str:
        return self.absent.get(tensor, f"input '{tensor}' was not given")

    def _let_go(self, step: Step) -> None:
        """Drops tensors that no other step will take; the call holds its own."""
        for name in step.needs:
            if name in self._uses:
                self._uses[name] -= 1
                if self._uses[name] == 0:
                    self.values.pop(name, None)

    def _skipped(self, step: Step, reason: str) -> None:
        """Its outputs will not come, nor what would be made of them."""
        if step is self._level.decoupled:
            for output in self._run.plan.outputs:
                self.absent.setdefault(output.tensor, reason)
        if self._level.later:
            self._settled_outcome(step)
        for edge in step.outputs:
            self._absent(edge.tensor, reason)

    def _absent(self, tensor: str, reason: str) -> None:
        """A maker does not make a tensor; others may."""
        if tensor in self._makers_left:
            self._makers_left[tensor] -= 1
            if self._makers_left[tensor]:
                return
        if tensor not in self.values:
            self.absent.setdefault(tensor, reason)
        self._settled(tensor)

    def _settled(self, tensor: str) -> None:
        """A tensor is there, or will never be."""
        for step in self._level.consumers.get(tensor, ()):
            self._waited(step)

    def _settled_outcome(self, step: Step) -> None:
        """It is known whether a step runs: later makers of the same tensors wait for that."""
        for other in self._level.later.get(step.number, ()):
            self._waited(other)

    def _waited(self, step: Step) -> None:
        waiting = self._waiting
        waiting[step.number] -= 1
        if waiting[step.number] == 0 and not self.is_over:
            self._begin(step)

    # -- answers of steps ----------------------------------------------------------------------

    def answered(self, step: Step, response: InferResponse, *, final: bool) -> None:
        """One response of a step's model."""
        if self.is_over:
            return
        if response.parameters:
            self._run.heard(response)
        if step is self._level.decoupled:
            assert self.stream is not None
            self.stream.came(response, final=final)
        else:
            self._take(step, response)

    def finished(self, step: Step) -> None:
        """The end of a step's model without a further response."""
        if self.is_over:
            return
        if step is self._level.decoupled:
            assert self.stream is not None
            self.stream.close()
        else:
            self._take(step, None)

    def failed(self, step: Step, error: ServingError) -> None:  # noqa: ARG002 - Receiver's name
        """The end of a step's model with an error, which is the request's end."""
        if not self.is_over:
            self._run.failed(error)

    def _take(self, step: Step, response: InferResponse | None) -> None:
        missing = self.store(step, response)
        if step.return_if is not None and self._returns(step):
            self._return()
        for edge in step.outputs:
            if self.is_over:
                return
            if missing and edge.tensor in missing:
                self._absent(edge.tensor, missing[edge.tensor])
            else:
                self._settled(edge.tensor)
        if not self.is_over:
            self._end_step()

    def store(self, step: Step, response: InferResponse | None) -> dict[str, str]:
        """Puts what a step made among the tensors; returns what did not come, and why. None: it
        ended without a response."""
        missing: dict[str, str] = {}
        outputs = () if response is None else response.outputs
        kept = self._run.plan.kept
        for edge in step.outputs:
            for tensor in outputs:
                if tensor.name == edge.name:
                    if edge.tensor in kept:
                        self.values[edge.tensor] = tensor
                    break
            else:
                missing[edge.tensor] = f"{step.title} did not give output '{edge.name}'"
                if response is not None:
                    self.left_out.add(edge.tensor)
        return missing

    def _returns(self, step: Step) -> bool:
        assert step.return_if is not None
        try:
            return step.return_if.holds(self.values, self._run.request.parameters)
        except ServingError as error:
            self._run.failed(error)
            return False

    def _return(self) -> None:
        """Answers with what there is."""
        for edge in self._run.plan.outputs:
            if edge.tensor not in self.values:
                self.absent[edge.tensor] = CONDITIONAL
        if self.stream is not None:
            self.stream.release()
            self.stream = None
        self.is_done = True
        self._run.progress()

    def _end_step(self) -> None:
        self._running -= 1
        if self._running or self.is_over:
            return
        if self.stream is None:
            self.is_done = True
        else:
            self.stream.admit()
        self._run.progress()

    # -- answers of the ensemble ---------------------------------------------------------------

    def take_turn(self) -> bool:
        """Being the one in turn, answers all that has come; returns whether it is over."""
        if self.stream is not None:
            return self.stream.take_turn()
        if self.is_done and not self._run.is_over:
            self._run.respond(self)
        return self.is_done
