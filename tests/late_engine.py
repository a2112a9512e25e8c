"""An engine over a device that computes late, from its first request to its last."""

import random
from dataclasses import dataclass, field, replace

import torch
from late_device import HashModel, LateRunner, LateStages
from torch import Tensor

from trivet.backends.api import ComputedStep, Grammar, Sampling
from trivet.backends.llm.device.staging import DeviceStaging
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Abort, Message, Outputs, Quit, Submit
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.steps.runner import TorchRunner

MODEL_LEN = 64
STOPS = [0, 1, 2]
PLAIN = Sampling(temperature=0.0, max_tokens=12)


class OnlyOdd:
    """A grammar: odd tokens."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def mask(self) -> Tensor:
        return torch.arange(30) % 2 == 1

    def accept(self, token: int) -> None:
        self.accepted.append(token)


class OddGrammars:
    """Binds the requests whose names say so."""

    def constraint(self, submit: Submit) -> OnlyOdd | None:
        return OnlyOdd() if submit.id.startswith("odd") else None

    def close(self) -> None:
        pass


@dataclass
class Run:
    """One engine from its first request to its last, and what came of it."""

    overlaps: bool
    """Whether a step is launched while the one before it is computed."""
    num_blocks: int = 40
    block_size: int = 4
    max_num_seqs: int = 6
    budget: int | None = 16
    caching: bool = True
    num_stages: int = 1
    tokens: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    cached: dict[str, int] = field(default_factory=dict)
    steps: list[ComputedStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = BlockPool(self.num_blocks, self.block_size)
        self.scheduler = Scheduler(
            self.pool, max_num_seqs=self.max_num_seqs, max_batched_tokens=self.budget,
            block_size=self.block_size, enable_prefix_caching=self.caching,
            max_model_len=MODEL_LEN, watermark=0.0, num_stages=self.num_stages,
        )  # fmt: skip
        self.state = BatchState(
            max_num_seqs=self.max_num_seqs, max_model_len=MODEL_LEN, block_size=self.block_size
        )
        self.model = HashModel(self.num_blocks, self.block_size)
        staging = DeviceStaging(torch.device("cpu"))  # as a GPU's, all arrays in one copy
        self.runner = LateRunner(TorchRunner(self.model, staging, max_num_seqs=self.max_num_seqs))
        launcher = self.runner if self.overlaps else None
        self.stages = LateStages(TorchRunner(self.model, staging))
        stages = (self.stages, self.num_stages) if self.num_stages > 1 else None
        self.engine = Engine(
            self.scheduler, self.state, self.runner, OddGrammars(), self._send, launcher,
            stages=stages,
        )  # fmt: skip

    def play(self, script: list[list[Message]]) -> "Run":
        """Gives the engine each group of messages behind the one before, a frame apart."""
        self._script = list(script)
        self._open: set[str] = set()
        self._next()
        self.engine.run()
        return self

    def _next(self) -> None:
        while self._script:
            for message in self._script.pop(0):
                if isinstance(message, Submit):
                    self._open.add(message.id)
                elif isinstance(message, Abort):
                    self._open -= set(message.ids)
                self.engine.inbox.put(message)
            if self._open:
                return
        self.engine.inbox.put(Quit())

    def _send(self, message: Message) -> None:
        assert isinstance(message, Outputs)
        self.steps += message.steps
        for output in message.each():
            assert output.id not in self.ends, "an output after the end"
            self.tokens.setdefault(output.id, []).extend(output.token_ids)
            self.cached[output.id] = self.cached.get(output.id, 0) + output.num_cached
            if output.error:
                self.kinds[output.id] = output.error_kind
            if output.finish:
                self.ends[output.id] = output.finish
                self._open.discard(output.id)
        if self._script or not self._open:
            self._next()

    def assert_nothing_is_held(self) -> None:
        """Every block and every row is free."""
        stats = self.scheduler.stats()
        assert (stats.num_running, stats.num_waiting, stats.blocks.used) == (0, 0, 0)
        assert len(self.state._free) == self.max_num_seqs


def request(name: str, prompt: list[int], sampling: Sampling = PLAIN, seed: int = 0) -> Submit:
    grammar = Grammar("regex", "odd") if name.startswith("odd") else None
    ends = [] if sampling.ignore_eos else STOPS
    return Submit(name, prompt, replace(sampling, grammar=grammar), seed, [], ends)


def random_script(chance: random.Random) -> tuple[list[list[Message]], set[str]]:
    """Requests of all kinds that come one after another, and the ids of those that are aborted."""
    stem = [chance.randrange(3, 40) for _ in range(12)]
    wishes = [
        PLAIN,
        replace(PLAIN, ignore_eos=True),
        Sampling(temperature=0.8, max_tokens=20),
        Sampling(temperature=1.0, top_p=0.8, max_tokens=9),
        Sampling(temperature=1.2, top_k=5, min_p=0.02, max_tokens=15),
        Sampling(temperature=0.0, repetition_penalty=1.3, max_tokens=6),
        Sampling(temperature=0.0, max_tokens=1),
    ]
    script: list[list[Message]] = []
    aborted = set()
    for number in range(chance.randrange(8, 20)):
        kind = chance.choice(["plain"] * 9 + ["odd"])
        prompt = stem[: chance.randrange(0, 12)] + [
            chance.randrange(3, 40) for _ in range(chance.randrange(1, 20))
        ]
        name = f"{kind}-{number}"
        script.append([request(name, prompt, chance.choice(wishes), seed=number)])
        if chance.random() < 0.2:
            aborted.add(name)
            if chance.random() < 0.5:
                script[-1].append(Abort([name]))
        script += [[] for _ in range(chance.choice([0, 0, 1, 3]))]
    for name in sorted(aborted):
        script[chance.randrange(len(script))].append(Abort([name]))
    return script, aborted
