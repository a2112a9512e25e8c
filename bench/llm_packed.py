"""Weights of few bits: a decoder that keeps them packed next to the same one in bfloat16, step by
step in one process, and served next to llama.cpp's server if TRIVET_BENCH_LLAMA names it; then what
an engine takes of memory, next to its file."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from bench.figures import Figures, Measure, Row, alternate, in_turn, ratio_row
from bench.llm import MAX_MODEL_LEN, MODEL, NEW_TOKENS
from bench.llm_decoders import BLOCK_SIZE, CONTEXT, MOST_STREAMS, decode_step, rate
from bench.llm_models import gguf_in
from bench.llm_servers import Running, llama_server, our_repository, ours, running
from bench.llm_wide import wide_gguf
from bench.processes import run_module
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

BARS = {"1 stream": 2.0, "16 streams": 1.1, "32 streams": 1.1, "a prompt of 512 tokens": 0.9}
NEXT_TO_LLAMA, MEMORY = 1.2, 1 / 1.3
PROMPT = 512
_MEASURED_BYTES = 1 << 29
"""Of what is read to find out how fast the memory is: more than any cache."""


def bench_llm_packed(seconds: float, rounds: int) -> list[Row]:
    """Of SmolLM2 and of a made model of width 2048."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _files(Path(folder)).items():
            rows += _next_to_numbers(name, path, seconds, rounds)
            rows += _next_to_llama(name, path, Path(folder), rounds)
        rows.append(_memory(Path(folder)))
    return rows


def _files(folder: Path) -> dict[str, Path]:
    small = {kind: gguf_in(kind, MODEL, folder / f"{kind}.gguf") for kind in ("Q4_0", "Q4_1")}
    wide = {
        kind: wide_gguf(kind, MODEL, folder / f"wide-{kind}.gguf") for kind in ("Q4_0", "Q4_K_M")
    }
    return {f"SmolLM2 {kind}": path for kind, path in small.items()} | {
        f"width 2048 {kind}": path for kind, path in wide.items()
    }


def _next_to_numbers(name: str, path: Path, seconds: float, rounds: int) -> Iterator[Row]:
    config, packed, _ = load_model(path, torch.bfloat16)
    numbers = {key: _as_numbers(each) for key, each in packed.items()}
    models = {"ours": _model(config, packed), "bare": _model(config, numbers)}
    read_bytes = sum(each.nbytes for each in packed.values())
    del packed, numbers
    most_bytes = _bytes_per_s()
    inputs = {
        "1 stream": decode_step(1), "16 streams": decode_step(16), "32 streams": decode_step(32),
        "a prompt of 512 tokens": _prompt_step(),
    }  # fmt: skip
    for what, step in inputs.items():
        sides: dict[str, Measure] = {
            side: partial(rate, model, step, seconds) for side, model in models.items()
        }
        in_turn(sides, 1)  # to warm up
        found = in_turn(sides, rounds)
        fastest = max(each["rate_per_s"] for each in found["ours"]) / len(step.token_ids)
        share = f"{read_bytes * fastest / most_bytes:.2f} of the bandwidth"
        cell = f"LLM, {name}, {what}, next to bfloat16"
        yield ratio_row(cell, "tokens/s", found, BARS[what], note=share)


def _as_numbers(stored: Stored) -> torch.Tensor:
    return (stored if isinstance(stored, torch.Tensor) else stored.expanded()).to(torch.bfloat16)


def _model(config: LlmConfig, weights: Mapping[str, Stored]) -> Model:
    blocks = MOST_STREAMS * CONTEXT // BLOCK_SIZE + 1
    return make_model(Weights(weights, config), KvCache(config, blocks, BLOCK_SIZE, torch.bfloat16))


def _prompt_step() -> StepInputs:
    """All tokens of a prompt, of which the last one's logits are wanted."""
    places = torch.arange(PROMPT)
    return StepInputs(
        token_ids=places + 20,
        positions=places,
        slot_mapping=places + BLOCK_SIZE,
        query_starts=torch.tensor([0, PROMPT], dtype=torch.int32),
        sequence_lengths=torch.tensor([PROMPT], dtype=torch.int32),
        block_tables=torch.arange(1, PROMPT // BLOCK_SIZE + 1, dtype=torch.int32).unsqueeze(0),
        sample_rows=torch.tensor([PROMPT - 1]),
    )


def _bytes_per_s() -> float:
    """That all cores together read."""
    return run_module("bench.llm_packed_side", "bandwidth", str(_MEASURED_BYTES))["bytes_per_s"]


def _next_to_llama(name: str, path: Path, folder: Path, rounds: int) -> Iterator[Row]:
    """Served, one stream of 32-token prompts."""
    with ExitStack() as stack:
        theirs = llama_server(path, MAX_MODEL_LEN)
        if theirs is None:
            return
        repository = our_repository(path, folder / f"{path.stem}-served", MAX_MODEL_LEN)
        servers = [ours(repository, native=True), theirs]
        started = {each.name: stack.enter_context(running(each)) for each in servers}
        sides = {key: partial(_served, server) for key, server in started.items()}
        found = alternate(sides, rounds)
        mine, other = (found[server.name]["tokens_per_s"] for server in servers)
        cell = f"LLM, {name}, served, 1 stream, next to llama.cpp"
        yield Row(cell, "tokens/s", mine, other, NEXT_TO_LLAMA)


def _served(server: Running) -> Figures:
    with server.awake() as url:
        numbers = map(str, (1, 32, 0, NEW_TOKENS, 3, os.getpid()))
        return run_module("bench.llm_http", url, "smollm2", *numbers)


def _memory(folder: Path) -> Row:
    """Resident bytes of an engine that has said something, less those of one of a single layer."""
    wide, none = folder / "wide-Q4_0.gguf", wide_gguf("Q4_0", MODEL, folder / "none.gguf", layers=1)
    taken, without = (
        run_module("bench.llm_packed_side", "resident", str(path))["bytes"] for path in (wide, none)
    )
    size = wide.stat().st_size - none.stat().st_size
    cell = "LLM, a file's bytes next to what its engine takes for them"
    return Row(cell, "MB", size / 1e6, (taken - without) / 1e6, MEMORY)
