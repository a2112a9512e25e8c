"""The engine's loop: inbox, schedule, run, sample, outbox. Knows no process and no socket."""

import logging
import queue
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from torch import Tensor

from trivet.backends.api import ServingError
from trivet.backends.llm.batch_state import BatchState, StepArrays
from trivet.backends.llm.border import Waits, current_waits
from trivet.backends.llm.devices import DEVICE_LOST
from trivet.backends.llm.generation import (
    Generation,
    StepResult,
    choose,
    logits_rows,
    output_of,
)
from trivet.backends.llm.messages import Abort, Message, Output, Outputs, Quit, Submit
from trivet.backends.llm.sampler import Constraint, Logprobs, RowState
from trivet.backends.llm.scheduler import Scheduler, StepPlan
from trivet.backends.llm.sequence import Sequence, SequenceStatus

log = logging.getLogger(__name__)
FAILED = "the model failed while computing; the server log has the details"


class Runner(Protocol):
    """Computes a step."""

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """Logits, float32 [len(rows), vocabulary], of the step's tokens at these places."""


class Grammars(Protocol):
    """Makes a request's constraint, which learns each token that was chosen."""

    def constraint(self, submit: Submit) -> "LearningConstraint | None":
        """None for a request without a grammar. Raises InvalidRequest."""


class LearningConstraint(Constraint, Protocol):
    """A grammar on its way through an output."""

    def accept(self, token: int) -> None:
        """The token has been chosen."""


class Engine:
    """Owned by one thread. `inbox` is filled by another; `send` takes what goes out."""

    def __init__(
        self,
        scheduler: Scheduler,
        state: BatchState,
        runner: Runner,
        grammars: Grammars,
        send: Callable[[Message], None],
    ) -> None:
        self._scheduler = scheduler
        self._state = state
        self._runner = runner
        self._grammars = grammars
        self._send = send
        self._generations: dict[str, Generation] = {}
        self._unstarted: dict[str, Generation] = {}
        """Those of them that no step has computed a token of."""
        self._outputs: list[Output] = []
        self._waits = Waits()
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.step_started_s = 0.0
        """Monotonic time at which the present step began, 0 between steps; for the heartbeat."""

    def run(self) -> None:
        """Until a Quit comes."""
        current_waits.set(self._waits)
        while self._take_messages(wait=not self._scheduler.has_work):
            if self._scheduler.has_work:
                self.step()

    def step(self) -> None:
        """Computes one step and sends what came of it."""
        self.step_started_s = time.monotonic()
        plan = self._scheduler.schedule()
        for sequence in plan.preempted:
            self._state.leave(sequence.id)
        if plan.rows:
            self._compute(plan)
        self._flush()
        self.step_started_s = 0.0

    def stats(self) -> dict[str, float]:
        """Numbers for the metrics page."""
        stats = self._scheduler.stats()
        return {
            "running": stats.num_running,
            "waiting": stats.num_waiting,
            "preemptions": stats.total_preemptions,
            "prompt_tokens": stats.total_prompt_tokens,
            "cached_tokens": stats.total_cached_tokens,
            "kv_usage": stats.blocks.used / max(stats.blocks.total, 1),
            "num_blocks": stats.blocks.total,
            "host_synchronisations": self._waits.count,
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
                self._add(message)
            elif isinstance(message, Abort):
                self._abort(message.ids)

    def _add(self, submit: Submit) -> None:
        sampling = submit.sampling
        try:
            sequence = Sequence(
                submit.id,
                submit.prompt_ids,
                max_new_tokens=self._max_new_tokens(submit),
                priority=submit.priority,
                needs_prompt_logprobs=sampling.prompt_logprobs is not None,
                cache_salt=submit.cache_salt,
            )
            row = RowState(
                sampling,
                submit.seed,
                submit.prompt_ids,
                tuple(submit.end_ids),
                tuple(map(tuple, submit.bad_word_ids)),
                self._grammars.constraint(submit),
            )
            self._scheduler.add(sequence)
        except ServingError as error:
            kind = type(error).__name__
            self._outputs.append(Output(submit.id, [], "error", error.message, kind))
            self._flush()
            return
        generation = Generation(submit, sequence, row, time.monotonic())
        self._generations[submit.id] = self._unstarted[submit.id] = generation

    def _max_new_tokens(self, submit: Submit) -> int:
        wanted = submit.sampling.max_tokens
        if wanted is None:
            # The scheduler cuts it to what fits behind the prompt.
            return self._scheduler.limits.max_tokens
        # Scoring alone takes a token too, which is not told.
        return max(wanted, 1)

    def _abort(self, ids: Iterable[str]) -> None:
        for request_id in ids:
            if self._generations.pop(request_id, None) is not None:
                self._unstarted.pop(request_id, None)
                self._scheduler.abort(request_id)
                self._state.leave(request_id)

    # -- a step --------------------------------------------------------------------------------

    def _compute(self, plan: StepPlan) -> None:
        try:
            result = StepResult(plan, self._forward(plan))
            result.score(self._generations)
            sampling = [row.sequence for row in plan.rows if row.samples]
            generations = [self._generations.get(sequence.id) for sequence in sampling]
            tokens, logprobs, errors = choose(result.sampling_logits(), generations)
        except DEVICE_LOST:
            # Nothing more can be computed in this process; another is started in its place.
            log.exception("the device failed")
            raise
        except Exception:
            # The batch is lost, the engine is not: its caches hold only what was published.
            log.exception("a step failed")
            self._fail([row.sequence for row in plan.rows])
            return
        for index, error in errors.items():
            told = Output(sampling[index].id, [], "error", error.message, type(error).__name__)
            self._end(sampling[index], told)
            generations[index] = None
        self._scheduler.update(plan, tokens)
        self._tell_all(generations, tokens, logprobs)

    def _tell_all(
        self,
        generations: list[Generation | None],
        tokens: list[int],
        logprobs: dict[int, Logprobs],
    ) -> None:
        running, tell = SequenceStatus.RUNNING, self._outputs.append
        for index, (generation, token) in enumerate(zip(generations, tokens, strict=True)):
            if generation is None:
                continue
            row = generation.row
            is_plain = row.output_ids and not logprobs and row.constraint is None
            if is_plain and token not in row.end_ids and generation.sequence.status is running:
                # Most rows of most steps; with hundreds of them the calls are what a step costs.
                row.output_ids.append(token)
                tell(Output(generation.sequence.id, [token]))
            else:
                self._tell(generation, token, logprobs.get(index))

    def _forward(self, plan: StepPlan) -> Tensor:
        if self._unstarted:
            for row in plan.rows:
                generation = self._unstarted.pop(row.sequence.id, None)
                if generation is not None:
                    generation.note_start()
        return self._runner.run(self._state.arrays(plan), logits_rows(plan))

    def _tell(self, generation: Generation, token: int, logprobs: Logprobs | None) -> None:
        row = generation.row
        is_first = not row.output_ids
        row.output_ids.append(token)
        is_last = generation.sequence.status is SequenceStatus.FINISHED
        output = output_of(generation, token, logprobs, is_last=is_last, first=is_first)
        if row.constraint is not None and not output.finish:
            row.constraint.accept(token)  # type: ignore[attr-defined]
        if output.finish:
            self._end(generation.sequence, output)
        else:
            self._outputs.append(output)

    def _end(self, sequence: Sequence, output: Output) -> None:
        self._generations.pop(sequence.id, None)
        self._unstarted.pop(sequence.id, None)
        self._scheduler.finish(sequence.id)
        self._state.leave(sequence.id)
        self._outputs.append(output)

    def _fail(self, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            self._end(sequence, Output(sequence.id, [], "error", FAILED))

    def _flush(self) -> None:
        if self._outputs:
            outputs, self._outputs = self._outputs, []
            self._send(Outputs(outputs, self.stats()))
