"""Runs the requests of an ensemble: asks the models of its steps and hands tensors on.

Tensors go from step to step as they are: no copies, no codecs. Everything here runs on the event
loop and on callbacks; there are no tasks.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial

from trivet.backends.api import (
    Cancelled,
    CancelToken,
    Cause,
    CheckedRequest,
    CopyKind,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    ModelServer,
    NotFound,
    Observer,
    Parameters,
    Residence,
    ServingError,
    Sink,
    Tensor,
    Unavailable,
    Window,
    derive,
    inherited,
)
from trivet.backends.api.value import changed
from trivet.ensembles.adapting import adapted
from trivet.ensembles.calls import Question, call_model
from trivet.ensembles.graph import Graph, Step
from trivet.ensembles.mapping import MappedCall
from trivet.ensembles.merging import (
    SHARED,
    Member,
    MergedSink,
    can_merge,
    groups_of,
    is_plain,
    merged_request,
)
from trivet.ensembles.plan import Plan, make_plan
from trivet.ensembles.wave import Wave

MAX_PLANS = 64
"""Sets of wanted outputs whose plans are kept."""
_ANY = -1
"""Answers may be sent whenever they are there."""
SEQUENCE_PARAMETERS = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class EnsembleExecutor:
    """The Executor of an ensemble."""

    def __init__(self, version: int, graph: Graph, server: ModelServer, observer: Observer) -> None:
        self.name = graph.config.name
        self.version = version
        self.graph = graph
        self.server = server
        self.observer = observer
        self._plans: dict[tuple[str, ...], Plan] = {(): make_plan(graph, ())}
        self._placed_plans: dict[tuple[tuple[str, ...], tuple[str, ...]], Plan] = {}
        self._runs: set[_Run] = set()
        self._empty: asyncio.Event | None = None
        """Only while somebody waits: one more thing to do for each request otherwise."""
        self._stopping = ""
        self._loop = asyncio.get_running_loop()
        self._can_merge = can_merge(graph)
        # Of more rows, one step's instance would compute what several share.
        sizes = (step.signature.compute_batch_size for step in graph.steps)
        self._most_merged = min(graph.signature.max_batch_size, *sizes)
        self._arrived: list[Member] = []

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """Starts the request's first steps, with those that arrive in this turn of the loop where
        that makes no difference to them; see `Executor`."""
        member = Member(request, sink, time.monotonic_ns())
        if not self._can_merge or self._stopping or not is_plain(request):
            self._start(member)
            return
        if not self._arrived:
            self._loop.call_soon(self._start_arrived)
        self._arrived.append(member)

    def _start_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        is_split = len(arrived) > 1 and any(map(self.server.is_shared_out, self.graph.parts))
        for members in groups_of(arrived, 1 if is_split else self._most_merged):
            if len(members) == 1:
                self._start(members[0])
            else:
                self._start_merged(members)

    def _start_merged(self, members: list[Member]) -> None:
        request = merged_request(members, partial(self.observer.copied, CopyKind.GATHER))
        sink = MergedSink(members, request.cancel, self._answer, self._run_alone)
        self._start(Member(request, sink, members[0].arrived_ns), is_merged=True)

    def _answer(self, member: Member, response: InferResponse) -> None:
        """One member's part of a joint answer."""
        total_ns = time.monotonic_ns() - member.arrived_ns
        if member.request.cancel.cancelled:
            error = _in_ensemble(self.name, Cancelled("request was cancelled"))
            self.observer.failed(error, total_ns)
            member.sink.fail(error)
            return
        self.observer.first_response(total_ns)
        self.observer.succeeded(member.request.batch_size, total_ns)
        member.sink.send(response, final=True)

    def _run_alone(self, member: Member, error: ServingError) -> None:
        """A joint request has failed: whose fault it was shows each by itself."""
        if isinstance(error, SHARED) or self._stopping:
            self.observer.failed(error, time.monotonic_ns() - member.arrived_ns)
            member.sink.fail(error)
        else:
            self._start(member)

    def _start(self, member: Member, *, is_merged: bool = False) -> None:
        request = member.request
        plan = self._plans.get(request.output_names)
        if plan is None or request.residence:
            plan = self._plan(request.output_names, request.residence)
        run = _Run(self, plan, member, is_merged=is_merged)
        self._runs.add(run)
        if self._stopping:
            run.failed(Unavailable(self._stopping))
        else:
            run.start()

    def _plan(self, output_names: tuple[str, ...], wanted: Mapping[str, Residence]) -> Plan:
        # Who asks for outputs on a device is another ensemble, or has memory there.
        where = tuple(sorted(f"{name} {each.value}" for name, each in wanted.items()))
        plan = self._placed_plans.get((output_names, where)) if where else None
        if plan is None:
            plan = make_plan(self.graph, output_names, wanted)
            if where and len(self._placed_plans) < MAX_PLANS:
                self._placed_plans[output_names, where] = plan
            elif not where and len(self._plans) < MAX_PLANS:
                self._plans[output_names] = plan
        return plan

    def window(self, step: Step, most: int) -> Window | None:
        """For so many responses of a decoupled step, 0: any number. A model that is asked in other
        steps, too, never waits: it might be for itself."""
        return Window(most) if most and step.number not in self.graph.shared else None

    def soon(self, callback: Callable[[], None]) -> None:
        """Calls it in another turn of the loop."""
        self._loop.call_soon(callback)

    def ended(self, run: "_Run") -> None:
        """From a run, once."""
        self._runs.discard(run)
        if self._empty is not None and not self._runs and not self._arrived:
            self._empty.set()
            self._empty = None

    def is_ready(self) -> bool:
        """Whether every step's model can compute now."""
        steps = self.graph.steps
        return not self._stopping and all(
            self.server.is_ready(step.model, step.version) for step in steps
        )

    def trouble(self) -> str:
        """See Supervised: which step cannot compute now."""
        steps = self.graph.steps
        waits_for = [s.model for s in steps if not self.server.is_ready(s.model, s.version)]
        return f"model '{waits_for[0]}' of its steps is not ready" if waits_for else ""

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised: its steps count their own."""
        return {}

    async def drain(self) -> None:
        """Refuses new requests and returns when every submitted one has ended."""
        self._start_arrived()
        self._stopping = self._stopping or f"ensemble '{self.name}' is being unloaded"
        while self._runs:
            self._empty = self._empty or asyncio.Event()
            await self._empty.wait()

    async def close(self) -> None:
        """Ends what is left."""
        self._stopping = self._stopping or f"ensemble '{self.name}' is being unloaded"
        self._start_arrived()
        for run in list(self._runs):
            run.failed(Unavailable(self._stopping))


class _Run:
    """One request on its way through the steps."""

    __slots__ = (
        "_arrived_ns", "_cancel", "_executor", "_has_responded", "_is_merged", "_is_progressing",
        "_room", "_sequence", "_sink", "_wants_progress", "_wave", "is_over", "max_inflight",
        "plan", "request",
    )  # fmt: skip

    def __init__(
        self, executor: EnsembleExecutor, plan: Plan, member: Member, *, is_merged: bool
    ) -> None:
        request = member.request
        self._arrived_ns = member.arrived_ns
        self._executor = executor
        self._sink = member.sink
        self._is_merged = is_merged
        self.plan = plan
        self.request = request
        # One that is soft would have to be waited for without blocking: its reader takes all.
        window = None if request.window is None or request.window.is_soft else request.window
        self._room = _ANY if window is None else window.size
        self.max_inflight = executor.graph.max_inflight or max(0, self._room)
        if window is not None:
            window.pass_on(self._gave)
        self.is_over = False
        self._sequence: dict[str, bool | int | float | str] | None = None
        self._has_responded = False
        self._is_progressing = self._wants_progress = False
        self._cancel = request.cancel
        if not plan.is_chain:
            # Its own: what runs beside a failed step is cancelled, the request itself is not.
            self._cancel = CancelToken()
            request.cancel.on_cancel(self._cancel.cancel)
        self._wave = Wave(self, 0, dict(request.inputs))

    def start(self) -> None:
        """Begins the first steps."""
        self._wave.start()

    # -- steps ---------------------------------------------------------------------------------

    def call(self, wave: Wave, step: Step, inputs: dict[str, Tensor]) -> None:
        """Asks a step's model; the answers come to the wave."""
        asked = self.plan.levels[step.level].output_names[step.number]
        request = derive(self.request, step.model, step.version, inputs, output_names=asked)
        if self._sequence is not None:
            request = self._overridden(request)
        window = None
        if step.signature.decoupled and wave.stream is not None:
            window = wave.stream.window
        residence = self.plan.residences[step.number]
        context = inherited(self.request, self._cancel, residence, window)
        server = self._executor.server
        if not step.settings.map:
            call_model(wave, step, Question(request, context), server)
            return
        lists = {e.name: inputs[e.name] for e in step.inputs if e.tensor in step.settings.map}
        num_lists = 2 if self._executor.graph.signature.batching else 1
        try:
            question = Question(request, context)
            call = MappedCall(wave, step, question, num_lists, self._executor.observer)
            call.start(lists, server)
        except ServingError as error:
            self.failed(error)

    def window(self, step: Step) -> Window | None:
        """See Run. Whoever waits for room goes on when the request is cancelled."""
        window = self._executor.window(step, self.max_inflight)
        if window is not None:
            self._cancel.on_cancel(window.open)
        return window

    def _overridden(self, request: InferRequest) -> InferRequest:
        given = self._sequence or {}
        sequence_id = given.get("sequence_id", request.sequence_id)
        return changed(
            request,
            sequence_id=sequence_id if isinstance(sequence_id, int | str) else request.sequence_id,
            sequence_start=bool(given.get("sequence_start", request.sequence_start)),
            sequence_end=bool(given.get("sequence_end", request.sequence_end)),
        )

    def heard(self, response: InferResponse) -> None:
        """What a step says of the sequence holds for the steps after it, and for the answer."""
        said = {k: v for k, v in response.parameters.items() if k in SEQUENCE_PARAMETERS}
        if said:
            self._sequence = {**(self._sequence or {}), **said}

    # -- answers -------------------------------------------------------------------------------

    def progress(self) -> None:
        """Answers what is in turn."""
        self._wants_progress = True
        if self._is_progressing:
            return
        self._is_progressing = True
        while self._wants_progress and not self.is_over:
            self._wants_progress = False
            if self._wave.take_turn() and not self.is_over:
                self._end(None)
                self._sink.finish()
        self._is_progressing = False

    def respond(self, wave: Wave) -> None:
        """Sends a wave's answer; a request's only wave ends it."""
        try:
            outputs = self._outputs(wave)
        except ServingError as error:
            self.failed(error)
            return
        is_only = wave is self._wave
        if not outputs and not is_only:
            return
        if not (self._has_responded or self._is_merged):
            self._has_responded = True
            self._executor.observer.first_response(time.monotonic_ns() - self._arrived_ns)
        executor, request = self._executor, self.request
        response = InferResponse(executor.name, executor.version, request.id, outputs)
        if self._sequence is not None:
            response.parameters = self._sequence_parameters(self._sequence)
        if is_only:
            self._end(None)
        elif self._room != _ANY:
            self._room -= 1
        self._sink.send(response, final=is_only)

    def _sequence_parameters(self, said: Parameters) -> Parameters:
        """All three, though steps may have said less: clients read them together."""
        return {
            "sequence_id": said.get("sequence_id", self.request.sequence_id),
            "sequence_start": said.get("sequence_start", False),
            "sequence_end": said.get("sequence_end", False),
        }

    @property
    def has_room(self) -> bool:
        """Whether another answer may be sent: an ensemble that this one is a step of may want no
        more of them for now."""
        return self._room != 0

    def _gave(self, is_open: bool) -> None:  # noqa: FBT001 - a Window's callback
        self._room = _ANY if is_open or self._room == _ANY else self._room + 1
        # Whoever gives room is in the midst of something.
        self._executor.soon(self.progress)

    def _outputs(self, wave: Wave) -> list[Tensor]:
        outputs: list[Tensor] = []
        for edge in self.plan.outputs:
            tensor = wave.values.get(edge.tensor)
            if tensor is not None:
                outputs.append(adapted(tensor, edge, edge.name))
                continue
            reason = wave.absent.get(edge.tensor, "it was not made")
            if reason and edge.tensor not in wave.left_out:
                raise InvalidRequest(
                    "unexpected deadlock, at least one output is not set while no more ensemble "
                    f"steps can be made: output '{edge.name}': {reason}"
                )
        return outputs

    def failed(self, error: ServingError) -> None:
        """Ends the request with an error that names the ensemble."""
        if self.is_over:
            return
        if self.request.cancel.cancelled and not isinstance(error, Cancelled):
            error = Cancelled("request was cancelled")
        told = _in_ensemble(self._executor.name, error)
        self._end(told)
        if self._cancel is not self.request.cancel:
            self._cancel.cancel()
        self._sink.fail(told)

    def _end(self, error: ServingError | None) -> None:
        self.is_over = True
        total_ns = time.monotonic_ns() - self._arrived_ns
        observer = self._executor.observer
        if self._is_merged:
            # Its members are counted, each by itself.
            pass
        elif error is None:
            observer.succeeded(self.request.batch_size, total_ns)
        else:
            observer.failed(error, total_ns)
        self._wave.release()
        # It refers here, and so does the window.
        del self._wave
        if self.request.window is not None:
            self.request.window.pass_on(_to_nobody)
        self._executor.ended(self)


def _to_nobody(is_open: bool) -> None:  # noqa: FBT001 - a Window's callback
    """The request is over."""


def _in_ensemble(name: str, error: ServingError) -> ServingError:
    text = f"in ensemble '{name}', {error.message}"
    # The client asked for the ensemble, which is there.
    kind = ModelNotReady if isinstance(error, ModelNotFound | NotFound) else type(error)
    return kind(text)
