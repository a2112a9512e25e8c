"""What a step of the LLM engine costs beside its model: scheduling, inputs, sampling, outputs."""

import gc
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.figures import Figures, Row, alternate
from trivet.backends.api import Sampling
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Message, Quit, Submit
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState, StepArrays
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler

NUM_SEQUENCES = 256
PROMPT_TOKENS = 64
MODEL_LEN = 1024
BLOCK_SIZE = 16
VOCABULARY = 16
"""So small that choosing from it is not what is measured."""
MAX_STEP_MS = 0.5
NUM_WARM_UP = 20


@dataclass(slots=True)
class TimedRunner:
    """Answers at once; ends the run after its steps and knows when they began and ended."""

    engine: Engine | None
    num_steps: int
    num_done: int = 0
    started_s: float = 0.0
    elapsed_s: float = 0.0
    started_cpu_s: float = 0.0
    cpu_s: float = 0.0

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:  # noqa: ARG002
        """Logits of which the first is the best."""
        self.num_done += 1
        if self.num_done == NUM_WARM_UP:
            self.started_s, self.started_cpu_s = time.perf_counter(), time.process_time()
        elif self.num_done == NUM_WARM_UP + self.num_steps:
            self.elapsed_s = time.perf_counter() - self.started_s
            self.cpu_s = time.process_time() - self.started_cpu_s
            assert self.engine is not None
            self.engine.inbox.put(Quit())
        logits = torch.zeros(len(rows), VOCABULARY)
        logits[:, 0] = 1.0
        return logits


def bench_llm_step(seconds: float, rounds: int) -> list[Row]:
    """Milliseconds a step at 256 running sequences, medians of rounds."""
    num_steps = steps_of(seconds)
    found = alternate({"step": lambda: measure(num_steps)}, rounds)["step"]
    cell = f"LLM engine's step without its model, {NUM_SEQUENCES} sequences"
    return [Row(cell, "ms", found["step_ms"], 0.0, MAX_STEP_MS, is_difference=True)]


def steps_of(seconds: float) -> int:
    """How many steps to measure: no more than the sequences have room for."""
    return min(int(seconds * 250), MODEL_LEN - PROMPT_TOKENS - NUM_WARM_UP - 1)


def measure(num_steps: int) -> Figures:
    """The mean step, blocks taken and published as they fill."""
    blocks = NUM_SEQUENCES * MODEL_LEN // BLOCK_SIZE + 1
    scheduler = Scheduler(
        BlockPool(blocks, BLOCK_SIZE),
        max_num_seqs=NUM_SEQUENCES,
        max_batched_tokens=None,
        block_size=BLOCK_SIZE,
        enable_prefix_caching=True,
        max_model_len=MODEL_LEN,
    )
    state = BatchState(max_num_seqs=NUM_SEQUENCES, max_model_len=MODEL_LEN, block_size=BLOCK_SIZE)
    runner = TimedRunner(None, num_steps)
    runner.engine = Engine(scheduler, state, runner, NoGrammars(), _drop)
    for submit in _submits():
        runner.engine.inbox.put(submit)
    gc.collect()
    gc.freeze()  # as the engine's process does
    runner.engine.run()
    return {
        "step_ms": runner.elapsed_s / num_steps * 1e3,
        "step_cpu_ms": runner.cpu_s / num_steps * 1e3,
    }


def _submits() -> list[Submit]:
    """Prompts of which each begins differently, so that none shares blocks."""
    sampling = Sampling(temperature=0.0, ignore_eos=True)
    return [
        Submit(f"{index}", [index + 1] * PROMPT_TOKENS, sampling, index, [], [])
        for index in range(NUM_SEQUENCES)
    ]


def _drop(message: Message) -> None:
    """The other side of the border has its own bench."""
