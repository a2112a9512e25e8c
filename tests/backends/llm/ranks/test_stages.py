"""Stages in processes of their own: their tokens are those of one process; the end of one is the
end of all, once for each request."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fault_room import metric
from llm_site import Call, Reply, caller, write_tiny_llm
from paged_models import LENGTHS, random_model, save_model
from patience import patience
from real_engine import DrivenEngine, submit
from serving import RunningServer

from trivet.backends.api import LoadFailed, Sampling
from trivet.backends.llm import loading
from trivet.backends.llm.device.group import Alone, Joined, stage_of
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.families.staging import Stage
from trivet.backends.llm.ranks.processes import RankedRunner
from trivet.backends.llm.settings import EngineSettings

GREEDY = Sampling(max_tokens=24, temperature=0.0, ignore_eos=True)
DRAWN = Sampling(max_tokens=10, temperature=1.0, top_p=0.9, ignore_eos=True, logprobs=2)
PROMPTS = [[(7 * n + at) % 119 for at in range(n)] for n in LENGTHS]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a tokenizer."""
    return save_model(tmp_path_factory.mktemp("model"))


def driven(folder: Path, **given: Any) -> DrivenEngine:
    """In chunks, and with so few blocks that stages must preempt."""
    made = DrivenEngine()
    values: dict[str, Any] = {
        "device": "cpu", "dtype": "float32", "num_threads": 1, "max_num_seqs": 8,
        "max_model_len": 128, "max_batched_tokens": 32, "kv_cache_bytes": 14 << 11, **given,
    }  # fmt: skip
    made.engine, _ = assemble.make_engine(EngineSettings(str(folder), **values), made.send)
    return made


def ended(made: DrivenEngine) -> None:
    assert isinstance(made.engine._runner, RankedRunner)
    made.engine._runner._others.close()
    torch.distributed.destroy_process_group()


@pytest.fixture
def two(folder: Path) -> Iterator[DrivenEngine]:
    """An engine of two stages, the first in a process of its own, over gloo."""
    made = driven(folder, pipeline_parallel_size=2)
    yield made
    ended(made)


def wished() -> list[Any]:
    return [submit(str(n), prompt, DRAWN, seed=n) for n, prompt in enumerate(PROMPTS)]


def test_two_stages_give_the_tokens_of_one(folder: Path, two: DrivenEngine) -> None:
    one = driven(folder, kv_cache_bytes=1 << 24)
    assert two.tokens(PROMPTS, GREEDY) == one.tokens(PROMPTS, GREEDY)
    assert two.preempted
    # What the first ones have left in the caches of both.
    assert two.run([submit("again", PROMPTS[1], GREEDY)])["again"].num_cached > 0
    found, wanted = two.run(wished()), one.run(wished())
    for name, result in wanted.items():
        assert found[name].tokens == result.tokens
        assert [each[2:4] for each in found[name].logprobs] == [
            each[2:4] for each in result.logprobs
        ]


@pytest.mark.slow  # four interpreters that import torch
@pytest.mark.timeout(600)
def test_two_stages_of_two_ranks_each_give_the_tokens_of_one(folder: Path) -> None:
    one = driven(folder, kv_cache_bytes=1 << 24)
    sizes = {"pipeline_parallel_size": 2, "tensor_parallel_size": 2}
    four = driven(folder, kv_cache_bytes=14 << 10, **sizes)
    assert four.tokens(PROMPTS, GREEDY) == one.tokens(PROMPTS, GREEDY)
    assert four.preempted
    ended(four)


def test_the_last_stage_is_the_one_that_chooses_tokens() -> None:
    settings = EngineSettings("model", pipeline_parallel_size=3, tensor_parallel_size=2)
    assert settings.num_ranks == 6
    assert [stage_of(rank, settings).number for rank in range(6)] == [2, 2, 1, 1, 0, 0]


class NoOthers:
    """Neighbours that are not there."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage


def test_a_stage_says_what_it_holds_and_that_it_takes_no_adapters() -> None:
    made = random_model("Llama", {"num_hidden_layers": 3})
    config, weights = from_hub(made.config.to_dict()), made.state_dict()
    stage = Stage(1, 2)
    own = {
        name: each for name, each in weights.items()
        if ".layers.2." in name or name in ("model.norm.weight", "lm_head.weight")
    }  # fmt: skip
    settings = EngineSettings(
        "model", max_model_len=64, kv_cache_bytes=1 << 22, pipeline_parallel_size=2, block_size=16,
        max_num_seqs=64,
    )  # fmt: skip
    joined: Any = Joined(Alone(), NoOthers(stage))  # type: ignore[arg-type]  # is not asked
    loaded = loading.build_part(settings, config, own, torch.float32, CPU, joined)
    assert loaded.config.num_layers == 3
    # One layer's keys and values: 2 x 2 heads x 8 numbers x 4 bytes a token.
    assert loaded.cache_bytes == loaded.num_blocks * 16 * 128
    assert loaded.weight_bytes == sum(each.nbytes for each in own.values())
    assert "stage 2 of 2, layers 2 to 2: 0 MiB of weights" in loaded.told()
    assert isinstance(loaded.adapters, str)
    assert "pipeline_parallel_size is 2" in loaded.adapters


def test_stages_need_processes_of_their_own(folder: Path) -> None:
    with pytest.raises(LoadFailed, match=r"in_process.*pipeline_parallel_size 2"):
        driven(folder, in_process=True, pipeline_parallel_size=2)


def test_models_without_a_family_are_not_cut_into_stages(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    settings = EngineSettings(str(tmp_path), pipeline_parallel_size=2)
    with pytest.raises(LoadFailed, match=r"compute all layers; pipeline_parallel_size is 2"):
        loading.load_part(settings, CPU)


CONFIG = """
backend: "llm"
parameters { key: "dtype" value { string_value: "float32" } }
parameters { key: "num_threads" value { string_value: "1" } }
parameters { key: "kv_cache_bytes" value { string_value: "1048576" } }
parameters { key: "pipeline_parallel_size" value { string_value: "2" } }
"""


@pytest.mark.slow  # a server whose engine starts twice
@pytest.mark.timeout(600)
def test_a_killed_rank_ends_each_request_once_and_its_engine_comes_back(
    tmp_path: Path, serve: Callable[..., RunningServer]
) -> None:
    write_tiny_llm(tmp_path, "tiny", CONFIG)
    server = serve(tmp_path)
    call = caller(server)
    before = asked(call)
    assert before.status == 200, before.body
    (rank,) = ranks(server)
    ends: list[tuple[Reply, float]] = []

    def ask_again_and_again() -> None:
        while (reply := asked(call)).status == 200:
            pass
        ends.append((reply, time.monotonic()))

    clients = [threading.Thread(target=ask_again_and_again) for _ in range(4)]
    for client in clients:
        client.start()
    server.wait_until(lambda: sum(metric(server, "vllm:num_requests_running")) >= 1, "running")
    killed_s = time.monotonic()
    rank.kill()
    for client in clients:
        client.join(patience())
    assert [reply.status for reply, _ in ends] == [503] * len(clients)
    assert max(ended_s for _, ended_s in ends) - killed_s < patience(1)
    server.wait_until(lambda: server.get("/v2/models/tiny/ready")[0] == 200, "ready again")
    assert asked(call).json["choices"][0]["text"] == before.json["choices"][0]["text"]
    assert [each.pid != rank.pid for each in ranks(server)] == [True]


def asked(call: Call) -> Reply:
    return call("/v1/completions", {
        "model": "tiny", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 200,
        "ignore_eos": True,
    })  # fmt: skip


def ranks(server: RunningServer) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if any("backends.llm.ranks.child" in word for word in child.cmdline())
    ]
