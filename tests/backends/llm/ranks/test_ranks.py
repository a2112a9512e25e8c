"""Ranks: each computes its part of a model, and together they give what one gives."""

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from family_models import BY_NAME, saved
from paged_models import LENGTHS, SHAPE, Paged, random_model, save_model, whole
from patience import patience
from rank_threads import Meeting, ThreadRank
from real_engine import DrivenEngine, submit
from torch import Tensor

from trivet.backends.api import LoadFailed, Sampling
from trivet.backends.llm.adapters.adapter import AdapterFiles
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.quantisation import Fp8Files
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.families.sharing import sharded_config
from trivet.backends.llm.matrices.fp8 import Fp8
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.parts import take_mlp
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.ranks.processes import RankedRunner
from trivet.backends.llm.ranks.step_frames import (
    RankSlot,
    RankStep,
    bodies,
    packed_slot,
    packed_step,
    unpacked,
)
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.quantised.reading import pack_quantised
from trivet.backends.llm.weights.taking import Weights

GREEDY = Sampling(max_tokens=10, temperature=0.0, ignore_eos=True)
DRAWN = Sampling(max_tokens=10, temperature=1.0, top_p=0.9, ignore_eos=True)
PROMPTS = [[(7 * n + at) % 119 for at in range(n)] for n in LENGTHS]


def part_logits(
    config: LlmConfig, weights: Mapping[str, Stored], rank: ThreadRank, found: list[Tensor]
) -> None:
    mine = sharded_config(config, rank.size)

    def make(mine: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        attention = TorchAttention(cache, mine.attentions)
        return TorchDecoder(Weights(weights, config, rank), attention)

    found[rank.rank] = torch.cat(Paged(mine, weights, 16, LENGTHS, make).run(PROMPTS, whole()))


@pytest.mark.parametrize(
    ("family", "changes", "size"),
    [
        ("Llama", {"attention_bias": True}, 2),
        ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}, 2),
        ("Qwen2", {"num_attention_heads": 8, "num_key_value_heads": 2}, 4),  # heads held twice
        ("Llama", {"vocab_size": 119}, 2),  # the last part of the vocabulary is filled up
    ],
)
def test_parts_together_give_what_the_whole_gives(
    family: str, changes: dict[str, object], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPE, "vocab_size", changes.get("vocab_size", 120))
    made = random_model(family, {"num_hidden_layers": 2, **changes})
    assert_parts_give_the_whole(from_hub(made.config.to_dict()), made.state_dict(), size)


@pytest.mark.parametrize("name", ["DeepseekV3", "GptOss"])
def test_latents_sinks_and_experts_are_shared_out(name: str, tmp_path: Path) -> None:
    values = BY_NAME[name].values({"vocab_size": 120})
    folder = saved(BY_NAME[name].model(values), values, tmp_path)
    config, weights, _ = load_model(folder, torch.float32)
    assert_parts_give_the_whole(config, weights, 2)


def assert_parts_give_the_whole(
    config: LlmConfig, weights: Mapping[str, Stored], size: int
) -> None:
    wanted = torch.cat(Paged(config, weights, 16, LENGTHS).run(PROMPTS, whole()))
    meeting, found = Meeting(size), [torch.empty(0)] * size
    threads = [
        threading.Thread(
            target=part_logits, args=(config, weights, ThreadRank(rank, meeting), found)
        )
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logits in found:
        torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("by_row", [False, True])
def test_parts_of_8_bit_weights_have_their_scales(by_row: bool) -> None:
    made = random_model("Llama", {"hidden_size": 96, "intermediate_size": 96})
    config, given = from_hub(made.config.to_dict()), made.state_dict()
    for name, weight in list(given.items()):
        if name.endswith("_proj.weight"):
            scale = weight.abs().amax(dim=1, keepdim=True) if by_row else weight.abs().max()
            given[f"{name}_scale"] = scale / 448
            given[name] = (weight / scale * 448).to(torch.float8_e4m3fn)
    weights: dict[str, Stored] = dict(given)
    pack_quantised(weights, Fp8Files(), torch.float32)
    meeting = Meeting(2)
    for rank in range(2):
        mlp = take_mlp(Weights(weights, config, ThreadRank(rank, meeting)), 1)
        own = slice(48 * rank, 48 * (rank + 1))
        name = "model.layers.1.mlp."
        gate, down = (_exact(given, f"{name}{kind}_proj.weight") for kind in ("gate", "down"))
        torch.testing.assert_close(_numbers(mlp.inner)[:48], gate[own])
        torch.testing.assert_close(_numbers(mlp.down), down[:, own])


def _numbers(matrix: object) -> Tensor:
    assert isinstance(matrix, Fp8)
    return matrix.data.float() * matrix.scales.unsqueeze(1)


def _exact(weights: Mapping[str, Tensor], name: str) -> Tensor:
    return weights[name].float() * weights[f"{name}_scale"]


@pytest.mark.parametrize("size", [4, 5])
def test_heads_that_cannot_be_shared_out_are_refused(size: int) -> None:
    config = from_hub(random_model("Llama", {}).config.to_dict())
    with pytest.raises(LoadFailed, match=rf"6 heads, 2 .* to {size} ranks .*tensor_parallel_size"):
        sharded_config(config, size)


def test_steps_come_to_other_ranks_as_they_were() -> None:
    arrays = StepArrays(
        np.arange(5), np.arange(5) + 1, np.arange(5) - 1, np.array([0, 5], dtype=np.int32),
        np.array([9], dtype=np.int32), np.arange(8, dtype=np.int32).reshape(4, 2).T,
    )  # fmt: skip
    draws = Draws(np.array([3]), np.array([0]), np.array([], dtype=np.int64), [np.ones((1, 1))] * 5)
    stream = bytearray(packed_step(arrays, [4], draws) + packed_step() + packed_step(arrays, [4]))
    half = stream[: len(stream) // 2]
    rest = stream[len(half) :]
    found = [unpacked(body) for body in bodies(half)]
    half += rest
    launched, idle, run = found + [unpacked(body) for body in bodies(half)]
    assert isinstance(launched, RankStep)
    assert isinstance(idle, RankStep)
    assert isinstance(run, RankStep)
    assert (idle.arrays, run.draws) == (None, None)
    assert launched.arrays is not None
    assert launched.draws is not None
    assert (launched.rows, run.rows) == ([4], [4])
    for name in StepArrays.__slots__:
        np.testing.assert_array_equal(getattr(launched.arrays, name), getattr(arrays, name))
    assert launched.draws.plain.tolist() == [0]
    assert [each.tolist() for each in launched.draws.wishes] == [[[1.0]]] * 5


def test_adapters_come_to_other_ranks_as_they_lie() -> None:
    files = AdapterFiles({"r": 4}, bytes(range(256)))
    found = [unpacked(body) for body in bodies(bytearray(packed_slot(3, files) + packed_slot(3)))]
    assert found == [RankSlot(3, files), RankSlot(3, None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a tokenizer."""
    return save_model(tmp_path_factory.mktemp("model"))


def driven(folder: Path, size: int, device: str = "cpu") -> DrivenEngine:
    made = DrivenEngine()
    settings = EngineSettings(
        str(folder), device=device, dtype="float32", num_threads=1, max_num_seqs=8,
        kv_cache_bytes=1 << 24, tensor_parallel_size=size,
    )  # fmt: skip
    made.engine, _ = assemble.make_engine(settings, made.send)
    return made


@pytest.fixture
def two(folder: Path) -> Iterator[DrivenEngine]:
    """An engine of two ranks, the second in a process of its own, over gloo."""
    made = driven(folder, 2)
    yield made
    assert isinstance(made.engine._runner, RankedRunner)
    made.engine._runner._others.close()
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_tokens_of_one(folder: Path, two: DrivenEngine) -> None:
    one = driven(folder, 1)
    assert two.tokens(PROMPTS, GREEDY) == one.tokens(PROMPTS, GREEDY)
    # The same ranks, with steps launched ahead: tokens stay on the ranks and come from rank 0.
    two.engine._launcher = two.engine._runner  # type: ignore[assignment]
    assert two.tokens(PROMPTS, GREEDY) == one.tokens(PROMPTS, GREEDY)
    wishes = [submit(str(n), prompt, DRAWN, seed=n) for n, prompt in enumerate(PROMPTS)]
    assert {n: r.tokens for n, r in two.run(wishes).items()} == {
        n: r.tokens for n, r in one.run(wishes).items()
    }


def test_the_end_of_a_rank_is_noticed_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    made = driven(folder, 2)
    runner = made.engine._runner
    assert isinstance(runner, RankedRunner)
    assert isinstance(made.engine, Engine)
    (process,) = runner._others.processes
    process.kill()
    assert ended.wait(patience(5))
    assert "rank 1 ended (code -9): the engine ends with it" in caplog.text
    runner._others.close()
    torch.distributed.destroy_process_group()


def test_other_ranks_end_with_the_first(folder: Path) -> None:
    made = driven(folder, 2)
    runner = made.engine._runner
    assert isinstance(runner, RankedRunner)
    (process,) = runner._others.processes
    runner._others._sockets[0].close()  # as the kernel does when the process ends
    assert process.wait() == 0
    runner._others.close()
    torch.distributed.destroy_process_group()


def test_what_no_rank_can_load_is_told_by_the_first(folder: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be shared out evenly to 4 ranks"):
        driven(folder, 4)
    torch.distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="less than two GPUs")
def test_two_gpus_give_the_tokens_of_one(folder: Path) -> None:
    two, one = driven(folder, 2, device="cuda"), driven(folder, 1, device="cuda")
    assert two.tokens(PROMPTS, GREEDY) == one.tokens(PROMPTS, GREEDY)
    runner = two.engine._runner
    assert isinstance(runner, RankedRunner)
    runner._others.close()
    torch.distributed.destroy_process_group()


def test_ranks_need_processes_of_their_own(folder: Path) -> None:
    settings = EngineSettings(str(folder), in_process=True, tensor_parallel_size=2)
    with pytest.raises(LoadFailed, match=r"in_process.*tensor_parallel_size"):
        assemble.make_engine(settings, lambda message: None)
