"""Requests over eight adapters of one base: next to as many of the base alone, and next to eight
engines of their own, one for each adapter, which share the machine.

`python -m bench.llm_lora STREAMS` is one of those: it says when it is ready, and generates for each
line that it reads.
"""

import json
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench.figures import Figures, Row, in_turn, ratio_row
from bench.llm import MODEL
from bench.llm_alone import prompts
from trivet.backends.api import Sampling
from trivet.backends.llm.engine.assemble import make_engine
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import AdapterRead, LoadAdapter, Message, Outputs, Submit
from trivet.backends.llm.settings import EngineSettings

STREAMS, ADAPTERS = 32, 8
PROMPT_TOKENS, NEW_TOKENS = 32, 48
RANK = 8
LEAST_OF_BASE, LEAST_OF_ENGINES = 0.8, 2.3
LAYERS, HIDDEN, INNER, KEYS = 30, 576, 1536, 192
"""Of SmolLM2-135M."""
MATRICES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (HIDDEN, KEYS),
    "self_attn.v_proj": (HIDDEN, KEYS), "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INNER), "mlp.up_proj": (HIDDEN, INNER),
    "mlp.down_proj": (INNER, HIDDEN),
}  # fmt: skip
"""All of a layer's: inputs and outputs."""


def bench_llm_lora(seconds: float, rounds: int) -> list[Row]:  # noqa: ARG001  # a round is one run
    """Tokens a second of 32 requests that come at once."""
    with tempfile.TemporaryDirectory() as folder, _engines() as engines:
        engine, seen = _open(str(MODEL), num_threads=0)
        _load(engine, seen, Path(folder))
        sides = {
            "adapters": lambda: _figures(
                engine, seen, [f"a{n % ADAPTERS}" for n in range(STREAMS)]
            ),
            "base": lambda: _figures(engine, seen, [""] * STREAMS),
            "engines": lambda: _together(engines),
        }
        for warm_up in sides.values():
            warm_up()
        found = in_turn(sides, rounds)
    cell = f"{STREAMS} streams over {ADAPTERS} adapters of rank {RANK} next to"
    ours, others = found["adapters"], f"{ADAPTERS} engines of {STREAMS // ADAPTERS}"
    base = {"ours": ours, "bare": found["base"]}
    engines = {"ours": ours, "bare": found["engines"]}
    return [
        ratio_row(f"{cell} {STREAMS} of the base", "tokens/s", base, LEAST_OF_BASE),
        ratio_row(f"{cell} {others}", "tokens/s", engines, LEAST_OF_ENGINES),
    ]


def _open(model: str, num_threads: int) -> tuple[Engine, queue.SimpleQueue[Message]]:
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    settings = EngineSettings(
        model, prefix_caching=False, max_loras=ADAPTERS, num_threads=num_threads,
        max_model_len=512, kv_cache_bytes=1 << 27,
    )  # fmt: skip
    engine, _ = make_engine(settings, seen.put)
    return engine, seen


def _load(engine: Engine, seen: queue.SimpleQueue[Message], root: Path) -> None:
    for number in range(ADAPTERS):
        folder = _write(root / f"a{number}", number)
        engine.inbox.put(LoadAdapter(folder.name, folder.name, str(folder)))
    missing = ADAPTERS
    while missing:
        engine._take_messages(wait=True)  # noqa: SLF001  # the loop without its thread
        while not seen.empty():
            read = seen.get()
            assert isinstance(read, AdapterRead)
            assert not read.error, read.error
            missing -= 1


def _write(folder: Path, seed: int) -> Path:
    """A random adapter over all matrices, as PEFT writes one."""
    folder.mkdir()
    chance = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name, (inputs, outputs) in MATRICES.items():
            stem = f"base_model.model.model.layers.{layer}.{name}"
            for end, shape in (("lora_A", (RANK, inputs)), ("lora_B", (outputs, RANK))):
                tensors[f"{stem}.{end}.weight"] = torch.randn(shape, generator=chance) * 0.02
    save_file(tensors, folder / "adapter_model.safetensors")
    config: dict[str, Any] = {"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _figures(engine: Engine, seen: queue.SimpleQueue[Message], adapters: list[str]) -> Figures:
    started_s = time.perf_counter()
    _generate(engine, seen, adapters)
    count = len(adapters) * NEW_TOKENS
    return {"rate_per_s": count / (time.perf_counter() - started_s)}


def _generate(engine: Engine, seen: queue.SimpleQueue[Message], adapters: list[str]) -> None:
    """A request of each adapter, "" for the base; all at once."""
    sampling = Sampling(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
    given = prompts(len(adapters), PROMPT_TOKENS)
    for number, (adapter, prompt) in enumerate(zip(adapters, given, strict=True)):
        engine.inbox.put(Submit(f"{number}", prompt, sampling, number, [], [], adapter=adapter))
    num_open = len(adapters)
    while num_open:
        engine._take_messages(wait=False)  # noqa: SLF001  # the loop without its thread
        engine.step()
        while not seen.empty():
            message = seen.get()
            assert isinstance(message, Outputs)
            num_open -= sum(bool(output.finish) for output in message.each())


@contextmanager
def _engines() -> Iterator[list[subprocess.Popen[str]]]:
    """One for each adapter, which computes as a merged model would; ready."""
    command = [sys.executable, "-m", "bench.llm_lora", str(STREAMS // ADAPTERS)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(ADAPTERS)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _together(processes: list[subprocess.Popen[str]]) -> Figures:
    started_s = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
    return {"rate_per_s": STREAMS * NEW_TOKENS / (time.perf_counter() - started_s)}


def _serve(streams: int) -> None:
    # A core for each would be theirs alone: more threads than that would only wait for each other.
    engine, seen = _open(str(MODEL), num_threads=1)
    print("ready", flush=True)
    for _ in sys.stdin:
        _generate(engine, seen, [""] * streams)
        print("done", flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
