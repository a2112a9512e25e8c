"""The engine's loop: inbox, schedule, run, sample, outbox. Knows no process and no socket."""

import logging
import queue
import time
from collections.abc import Callable, Iterable

from torch import Tensor

from trivet.backends.api import BackendFailed, ServingError
from trivet.backends.llm.device.border import Waits, current_waits
from trivet.backends.llm.device.devices import DEVICE_LOST
from trivet.backends.llm.engine.adapting import MakeAdapters, ReadAdapter, no_adapters
from trivet.backends.llm.engine.attempts import FAILED, Attempts
from trivet.backends.llm.engine.flight import (
    Flight,
    Launcher,
    StageRunner,
    StepRunner,
    draws_of,
    needs_host,
)
from trivet.backends.llm.engine.generation import (
    Generation,
    StepResult,
    choose,
    logits_rows,
    row_of,
    sequence_of,
)
from trivet.backends.llm.engine.guess import Guesses
from trivet.backends.llm.engine.image_desk import ImageDesk, Prepared
from trivet.backends.llm.engine.intake import Intake, Note
from trivet.backends.llm.engine.outbox import BegunStep, Outbox
from trivet.backends.llm.engine.stages import StagedFlight, StagedSteps
from trivet.backends.llm.engine.telling import Teller
from trivet.backends.llm.messages import (
    Abort,
    Message,
    Output,
    Quit,
    ResetPrefixCache,
    Submit,
)
from trivet.backends.llm.sampling.grammar_compiling import Compiled, Grammars, LearningConstraint
from trivet.backends.llm.sampling.sampler import RowState
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.plan import StepPlan
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.scheduling.sequence import PENDING, Sequence
from trivet.backends.llm.speculation.speculation import Speculation

log = logging.getLogger(__name__)


class Engine:
    """Owned by one thread. `inbox` is filled by another; `send` takes what goes out."""

    def __init__(
        self,
        scheduler: Scheduler,
        state: BatchState,
        runner: StepRunner,
        grammars: Grammars,
        send: Callable[[Message], None],
        launcher: Launcher | None = None,
        prepare: Callable[[], bool] = lambda: False,
        make_adapters: MakeAdapters = no_adapters,
        *,
        keeps_states: bool = False,
        images: ImageDesk | None = None,
        speculation: Speculation | None = None,
        stages: tuple[StageRunner, int] | None = None,
    ) -> None:
        """`launcher`: of a device that computes by itself; the next step is planned and launched
        while it does. Without one, a step ends before the next begins. `prepare`: a piece of work
        for idle moments; False when there is none left. `keeps_states`: see LlmConfig.
        `images`: of a model that reads them. `speculation`: needs steps that end before the next
        begins. `stages`: of a model in several, and how many."""
        self._scheduler = scheduler
        self._state = state
        self._runner = runner
        self._launcher = launcher
        self._prepare = prepare
        self._flight: Flight | None = None
        self._host_bound: set[str] = set()
        """Requests whose tokens are chosen on the host: steps that choose some are not launched
        but computed by themselves."""
        self._is_careful = False
        """The step under way is to land before another is planned, which is computed by itself."""
        self._generations: dict[str, Generation] = {}
        self._unstarted: dict[str, Generation] = {}
        """Those of them that no step has computed a token of."""
        self._keeps_states = keeps_states
        self._attempts = Attempts(
            self._compute_whole, self._fail, self._take_back, keeps_states=keeps_states
        )
        self._outbox = Outbox(send, self.stats)
        self._teller = Teller(self._outbox, self._end)
        self._guesses: Guesses | None = None
        if speculation is not None:
            self._guesses = Guesses(
                speculation, scheduler, self._outbox, self._fail, self._teller.tell_all
            )
        self._staged: StagedSteps | None = None
        if stages is not None:
            self._staged = StagedSteps(*stages, scheduler, state, self._outbox, self._settle)
        self._waits = Waits()
        self.inbox: queue.SimpleQueue[Message | Compiled | ReadAdapter | Prepared]
        self.inbox = queue.SimpleQueue()
        self._intake = Intake(
            grammars, make_adapters, self.inbox.put, self._add, self._refuse, images
        )
        self._sees = images is not None
        self._speculation = speculation
        self._wanted = None if speculation is None else speculation.wanted
        self.step_started_s = 0.0
        """Monotonic time at which the present step began, 0 between steps; for the heartbeat."""

    def run(self) -> None:
        """Until a Quit comes."""
        current_waits.set(self._waits)
        while self._take_messages(wait=not self.has_work and not self._prepare()):
            if self.has_work:
                self.step()

    @property
    def has_work(self) -> bool:
        """Whether a step is to be computed or under way."""
        is_under_way = self._flight is not None or (self._staged and self._staged.has_any)
        return bool(self._scheduler.has_work or is_under_way or self._intake.has_work)

    def close(self) -> None:
        """Ends what runs beside it. `run` has returned."""
        self._intake.close()

    def step(self) -> None:
        """Computes or launches one step and sends what came of it or of the one before."""
        self.step_started_s = time.monotonic()
        if self._sees and self._intake.has_work:
            self._look()
        if self._is_careful:
            self._land_alone()
        begun_s = time.monotonic()
        plan = self._scheduler.schedule(self._wanted)
        planning_s = time.monotonic() - begun_s
        for sequence in plan.preempted:
            self._state.leave(sequence.id)
            self._outbox.preempted.append(sequence.id)
        if self._staged is not None:
            step = BegunStep(plan, self._note_starts(plan), planning_s)
            self._staged.advance(step, self._sampling(plan))
        elif self._launcher is None or self._is_careful or self._needs_host(plan):
            self._land_alone()
            plan = plan.alive()
            if plan.rows:
                self._is_careful = False
                if self._speculation is not None:
                    plan = self._speculation.guess(plan, self._row_of)
                self._compute(plan, planning_s)
        else:
            self._launch(plan, planning_s)
        self._outbox.flush()
        self.step_started_s = 0.0

    def stats(self) -> dict[str, float]:
        """Numbers for the metrics page."""
        stats = self._scheduler.stats()
        return {
            "running": stats.num_running,
            "waiting": stats.num_waiting + self._intake.num_waiting,
            "preemptions": stats.total_preemptions,
            "prompt_tokens": stats.total_prompt_tokens,
            "cached_tokens": stats.total_cached_tokens,
            "kv_usage": stats.blocks.used / max(stats.blocks.total, 1),
            "num_blocks": stats.blocks.total,
            "host_synchronisations": self._waits.count,
            **({} if self._speculation is None else self._speculation.stats()),
        }

    # -- messages in ---------------------------------------------------------------------------

    def _take_messages(self, *, wait: bool) -> bool:
        """Handles what has come; False at the end."""
        while True:
            try:
                message = self.inbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if isinstance(message, Quit):
                return False
            if isinstance(message, Submit):
                self._intake.receive(message)
            elif isinstance(message, Abort):
                self._abort(message.ids)
            elif isinstance(message, Note):
                self._intake.note(message)
            elif isinstance(message, ResetPrefixCache):
                self._land_alone()
                self._scheduler.reset_prefix_cache(is_anew=message.is_anew)

    def _look(self) -> None:
        try:
            self._intake.look()
        except DEVICE_LOST:
            log.exception("the device failed")
            raise
        except Exception:
            log.exception("an image could not be looked at")
            self._intake.give_up(BackendFailed(FAILED))

    def _add(self, submit: Submit, constraint: LearningConstraint | None) -> None:
        try:
            slot = self._intake.adapters.slot_of(submit)
            known = self._intake.scheduled(submit)
            sequence = sequence_of(known, self._scheduler.limits.max_tokens, slot)
            row = row_of(submit, constraint)
            self._scheduler.add(sequence)
        except ServingError as error:
            self._refuse(submit.id, error)
            return
        generation = Generation(submit, sequence, row, time.monotonic())
        self._generations[submit.id] = self._unstarted[submit.id] = generation
        if needs_host(generation):
            self._host_bound.add(submit.id)

    def _refuse(self, request_id: str, error: ServingError) -> None:
        kind = type(error).__name__
        self._outbox.outputs.append(Output(request_id, [], "error", error.message, kind))
        self._outbox.flush()
        self._intake.end(request_id)

    def _abort(self, ids: Iterable[str]) -> None:
        for request_id in ids:
            generation = self._generations.pop(request_id, None)
            if generation is not None:
                self._forget(generation.sequence)
            else:
                self._intake.abort(request_id)

    # -- a step --------------------------------------------------------------------------------

    def _compute(self, plan: StepPlan, planning_s: float) -> None:
        """All of a step, as far as it can be."""
        step = BegunStep(plan, self._note_starts(plan), planning_s)
        self._attempts.compute(plan, step)
        if self._speculation is not None:
            self._speculation.note_step(time.monotonic() - step.begun_s)
        self._outbox.end_step(step)

    def _compute_whole(self, plan: StepPlan, step: BegunStep) -> None:
        begun_s = time.monotonic()
        logits = self._runner.run(self._state.arrays(plan), logits_rows(plan))
        step.end_forward(begun_s)
        result, generations = StepResult(plan, logits), self._sampling(plan)
        tokens = self._choose(result, generations, self._scheduler.update)
        if self._guesses is not None and plan.has_drafts:
            self._guesses.settle(result, generations, tokens)

    def _sampling(self, plan: StepPlan) -> list[Generation | None]:
        return [self._generations.get(row.sequence.id) for row in plan.rows if row.samples]

    def _choose(
        self,
        result: StepResult,
        generations: list[Generation | None],
        record: Callable[[StepPlan, list[int]], object],
    ) -> list[int]:
        """The tokens that follow from a step's logits, once they are recorded and told."""
        result.score(self._generations)
        tokens, logprobs, errors = choose(result.sampling_logits(), generations)
        for index, error in errors.items():
            failed = generations[index]
            assert failed is not None
            self._fail([failed.sequence], error)
            generations[index] = None
        record(result.plan, tokens)
        self._teller.tell_all(generations, tokens, logprobs)
        return tokens

    def _settle(self, flight: StagedFlight, logits: Tensor) -> None:
        alive = [each if self._is_alive(each) else None for each in flight.generations]
        self._choose(StepResult(flight.plan, logits), alive, self._scheduler.land)

    def _is_alive(self, generation: Generation | None) -> bool:
        """Whether a request has not ended, nor another come under its name."""
        return generation is not None and (
            self._generations.get(generation.submit.id) is generation
        )

    def _launch(self, plan: StepPlan, planning_s: float) -> None:
        """Starts a step behind the one under way, then tells what that gave."""
        launched = None
        if plan.rows:
            try:
                launched = self._start(plan, planning_s)
            except DEVICE_LOST:
                log.exception("the device failed")
                raise
            except Exception:
                # The next plan offers the same tokens again, to be computed with care.
                log.exception("a step could not be launched")
                self._is_careful = True
        self._land(launched)
        if self._keeps_states and plan.rows and launched is None:
            self._take_back(row.sequence for row in plan.rows)

    def _needs_host(self, plan: StepPlan) -> bool:
        """Whether a step chooses tokens, or scores a prompt, on the host."""
        return bool(self._host_bound) and any(
            (row.samples or row.sequence.needs_prompt_logprobs)
            and row.sequence.id in self._host_bound
            for row in plan.rows
        )

    def _land_alone(self) -> None:
        """Nothing is under way afterwards."""
        if self._staged is not None:
            self._staged.land_all()
        if self._flight is not None:
            self._land(None)
            # A message has at most one output of each request, for it has no order.
            self._outbox.flush()

    def _start(self, plan: StepPlan, planning_s: float) -> Flight:
        assert self._launcher is not None
        step = BegunStep(plan, self._note_starts(plan), planning_s)
        arrays = self._state.arrays(plan)
        generations = self._sampling(plan)
        draws = draws_of(generations, plan, self._state)
        tokens = self._launcher.launch(arrays, logits_rows(plan), draws)
        self._scheduler.launch(plan)
        return Flight(plan, generations, tokens, step)

    def _land(self, launched: Flight | None) -> None:
        """Waits for the step under way, if there is one, and tells what it gave; `launched` is
        under way then."""
        flight, self._flight = self._flight, launched
        if flight is None:
            return
        tokens = flight.tokens()  # raises what ends the engine: the device's own faults
        self._outbox.end_step(flight.step)
        self._scheduler.land(flight.plan, tokens)
        generations: list[Generation | None] = []
        for generation, token in zip(flight.generations, tokens, strict=True):
            if generation is not None:
                request_id = generation.submit.id
                if not self._is_alive(generation):
                    generation = None
                elif token == PENDING:
                    # The likeliest tokens do not hold what it draws from; the host has patience.
                    self._host_bound.add(request_id)
                    self._is_careful = True
                    self._state.leave(request_id)
                    if launched is not None:
                        launched.forget(generation)
                    generation = None
            generations.append(generation)
        self._teller.tell_all(generations, tokens, {})

    def _row_of(self, sequence: Sequence) -> RowState:
        return self._generations[sequence.id].row

    def _note_starts(self, plan: StepPlan) -> int:
        """How many requests this step is the first of."""
        num_unstarted = len(self._unstarted)
        if num_unstarted:
            for row in plan.rows:
                generation = self._unstarted.pop(row.sequence.id, None)
                if generation is not None:
                    generation.note_start()
        return num_unstarted - len(self._unstarted)

    def _end(self, sequence: Sequence, output: Output) -> None:
        self._generations.pop(sequence.id, None)
        self._forget(sequence)
        self._outbox.outputs.append(output)

    def _forget(self, sequence: Sequence) -> None:
        request_id = sequence.id
        self._unstarted.pop(request_id, None)
        self._host_bound.discard(request_id)
        self._scheduler.finish(request_id)
        self._state.leave(request_id)
        self._intake.end(request_id)
        if self._speculation is not None:
            self._speculation.forget(sequence)

    def _take_back(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            self._scheduler.take_back(sequence)
            self._state.leave(sequence.id)

    def _fail(self, sequences: Iterable[Sequence], error: ServingError) -> None:
        """Those that have ended before have had their end."""
        kind = type(error).__name__
        for sequence in sequences:
            if sequence.id in self._generations:
                self._end(sequence, Output(sequence.id, [], "error", error.message, kind))
