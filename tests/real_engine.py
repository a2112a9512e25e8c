"""The engine over the real small model in float32, in the test's own thread, and what it sent."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_reference import hub_model
from small_llm import write_small_gguf
from torch import Tensor

from trivet.backends.api import ComputedStep, Sampling
from trivet.backends.llm import loading
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import (
    Message,
    Outputs,
    Quit,
    Submit,
    TopLogprobs,
)
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.documents import load_tokenizer_files
from trivet.backends.llm.weights.files import load_model

SMOLLM2 = Path(__file__).parents[1] / "model_repository" / "smollm2" / "1" / "model.gguf"
MODEL_LEN = 256
GREEDY = Sampling(max_tokens=12, temperature=0.0, ignore_eos=True)
needs_weights = pytest.mark.skipif(not SMOLLM2.exists(), reason="run model_repository/build.py")


@dataclass(slots=True)
class Result:
    """One request's outputs put together."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TopLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TopLogprobs] | None = None
    finish: str = ""
    error: str = ""
    num_cached: int = 0


class DrivenEngine:
    """Runs requests to their ends. Owned by the test."""

    def __init__(self) -> None:
        self.results: dict[str, Result] = {}
        self.engine: Engine  # given once it is built, since it is built with our `send`
        self.steps: list[ComputedStep] = []
        self.preempted: list[str] = []
        self._num_open = 0
        self.expected: int | None = None
        """So many of the requests come to an end; None: all."""

    def run(self, submits: Sequence[Submit]) -> dict[str, Result]:
        """All of them at once; returns when the last has ended."""
        self.results = {}
        self._num_open = len(submits) if self.expected is None else self.expected
        for submit in submits:
            self.engine.inbox.put(submit)
        self.engine.run()
        return self.results

    def tokens(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
        """The outputs of prompts that run together."""
        results = self.run([submit(str(i), ids, sampling) for i, ids in enumerate(prompts)])
        assert not any(result.error for result in results.values()), results
        return [results[str(index)].tokens for index in range(len(prompts))]

    def send(self, message: Message) -> None:
        assert isinstance(message, Outputs)
        self.steps += message.steps
        self.preempted += message.preempted
        for output in message.each():
            result = self.results.setdefault(output.id, Result())
            assert not result.finish, "an output after the end"
            result.tokens += output.token_ids
            result.logprobs += output.logprobs or []
            result.prompt_logprobs = output.prompt_logprobs or result.prompt_logprobs
            result.finish, result.error = output.finish, output.error
            result.num_cached += output.num_cached
            self._num_open -= bool(output.finish)
        if not self._num_open:
            self.engine.inbox.put(Quit())


def submit(
    name: str,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    seed: int = 0,
    end_ids: Sequence[int] = (),
) -> Submit:
    """A request as the server's side would write it."""
    return Submit(name, list(prompt), sampling, seed, [], list(end_ids))


@cache
def real_weights() -> Any:
    """Read once: what `load_model` gives."""
    return load_model(SMOLLM2, torch.float32)


@cache
def real_tokenizer() -> Tokenizer:
    """The model's own."""
    return Tokenizer.from_files(load_tokenizer_files(SMOLLM2))


def hub_logprobs(ids: Sequence[int]) -> Tensor:
    """What `transformers` gives, [tokens, vocabulary]: of what follows each token."""
    with torch.no_grad():
        return torch.log_softmax(hub_model(SMOLLM2)(torch.tensor([ids])).logits[0], dim=-1)


def open_engine(**settings: Any) -> DrivenEngine:
    """Built as the server builds it, but for weights that are read once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_model", lambda path, dtype, families, stage: real_weights())
        return _open(SMOLLM2, **{"kv_cache_bytes": 1 << 29, **settings})


def open_small_engine(folder: Path) -> DrivenEngine:
    """Over a random model with the real one's tokenizer."""
    write_small_gguf(folder / "model.gguf", SMOLLM2)
    return _open(folder / "model.gguf", kv_cache_bytes=1 << 24)


def _open(path: Path, **settings: Any) -> DrivenEngine:
    driven = DrivenEngine()
    # One thread: two that wait for each other on a busy machine take many times as long.
    given = {"max_model_len": MODEL_LEN, **settings, "dtype": "float32", "num_threads": 1}
    driven.engine, _ = assemble.make_engine(EngineSettings(str(path), **given), driven.send)
    return driven


def rescheduled(
    built: DrivenEngine,
    *,
    block_size: int,
    max_batched_tokens: int,
    prefix_caching: bool,
    max_num_seqs: int = 32,
    max_model_len: int = MODEL_LEN,
) -> DrivenEngine:
    """Another engine over the model and the cache of `built`, which has that block size."""
    driven = DrivenEngine()
    num_blocks = built.engine._scheduler.stats().blocks.total + 1  # and the null block
    scheduler = Scheduler(
        BlockPool(num_blocks, block_size),
        max_num_seqs=max_num_seqs,
        max_batched_tokens=max_batched_tokens or None,
        block_size=block_size,
        enable_prefix_caching=prefix_caching,
        max_model_len=max_model_len,
    )
    state = BatchState(
        max_num_seqs=max_num_seqs, max_model_len=max_model_len, block_size=block_size
    )
    old = built.engine
    grammars = old._intake._compiler._grammars
    driven.engine = Engine(
        scheduler, state, old._runner, grammars, driven.send, keeps_states=old._keeps_states
    )
    return driven
