"""Where an engine computes: choices, and what is said when a device or its memory is not there."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from paged_models import LENGTHS, SHAPE, Paged, Steps, mixed, one_by_one, random_model, whole
from real_engine import GREEDY, needs_weights, open_engine, real_tokenizer
from torch import Tensor

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement, Sampling
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.backend import BACKEND
from trivet.backends.llm.device.devices import (
    MemoryUse,
    cache_bytes,
    choose_device,
    memory_told,
)
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.matrices.dense import Dense
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.messages import Message, Outputs, Quit, Submit
from trivet.backends.llm.models.parts import take_mlp
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.process.starting import start_engine
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState, StepArrays
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.settings import EngineSettings, engine_settings, placed
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.repository.config import instances, normalise

GIB = 1 << 30
HAS_GPU = torch.cuda.is_available()
SETTINGS = EngineSettings("model", device="cuda")


def files_of(folder: Path) -> ModelFiles:
    """A model's, as far as its config is concerned."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.gguf").touch()
    return ModelFiles(folder, 1)


def config_of(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def parameters(**given: str) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in given.items()
    )


@pytest.mark.parametrize(
    ("group", "kind", "device"),
    [
        ("", "KIND_MODEL", "auto"),
        ("instance_group { count: 1 }", "KIND_MODEL", "auto"),
        ("instance_group { kind: KIND_CPU }", "KIND_CPU", "cpu"),
        ("instance_group { kind: KIND_GPU }", "KIND_GPU", "cuda:0"),
        ("instance_group { kind: KIND_GPU gpus: 3 }", "KIND_GPU", "cuda:3"),
        ("instance_group { gpus: 1 }", "KIND_GPU", "cuda:1"),
    ],
)
def test_the_instance_group_says_where(tmp_path: Path, group: str, kind: str, device: str) -> None:
    files = files_of(tmp_path)
    completed = BACKEND.complete(config_of(group), files)
    (found,) = completed.instance_group
    assert type(found).Kind.Name(found.kind) == kind
    placement = Placement("m_0", kind, found.gpus[0] if found.gpus else 0, 1)
    assert placed(engine_settings(completed, files), placement).device == device
    assert BACKEND.complete(completed, files) == completed


MIG = Placement("m_0", "KIND_GPU", 0, 1, device_uuid="MIG-1")


@pytest.mark.parametrize("group", ["", "instance_group { kind: KIND_GPU gpus: [0] }"])
def test_a_device_by_uuid_is_the_only_one_that_the_engine_sees(
    tmp_path: Path, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(tmp_path)
    completed = BACKEND.complete(config_of(parameters(gpu_uuids="MIG-1") + group), files)
    config = normalise(completed)
    (placement,) = instances(config)
    assert placement.device_uuid == "MIG-1"
    assert BACKEND.starts_processes(config)
    settings = placed(engine_settings(config, files), placement)
    assert settings.device == "cuda:0"

    def tells_what_it_sees(module: str) -> str:
        return (
            "import os, socket, sys; from trivet.backends.llm.messages import Failed, pack;"
            "end = socket.socket(fileno=int(sys.argv[1]));"
            "end.sendall(pack(Failed(os.environ['CUDA_VISIBLE_DEVICES'])))"
        )

    monkeypatch.setattr("trivet.backends.process.launch.program", tells_what_it_sees)
    with pytest.raises(LoadFailed, match=r"^MIG-1$"):
        start_engine("m", settings)


def test_a_device_by_uuid_goes_with_no_other_word_on_where(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    with pytest.raises(InvalidConfig, match="'gpu_uuids' is 'MIG-1,MIG-2'; a language model takes"):
        BACKEND.complete(config_of(parameters(gpu_uuids="MIG-1,MIG-2")), files)
    for name, value in [("device", "cpu"), ("tensor_parallel_size", "2"), ("in_process", "true")]:
        settings = engine_settings(config_of(parameters(**{name: value})), files)
        with pytest.raises(InvalidConfig, match=f"names MIG-1, .* but parameter '{name}' is"):
            placed(settings, MIG)


def test_the_parameter_beats_the_instance_group(tmp_path: Path) -> None:
    config = config_of(parameters(device="cuda:2") + "instance_group { kind: KIND_CPU }")
    settings = engine_settings(config, files_of(tmp_path))
    assert placed(settings, Placement("m_0", "KIND_CPU", 0, 1)).device == "cuda:2"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:0,1", "mps"])
def test_devices_that_do_not_exist_anywhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match=f"parameter 'device' is '{name}'; it must be auto"):
        engine_settings(config_of(parameters(device=name)), files_of(tmp_path))


@pytest.mark.parametrize("share", ["0", "1.01", "90"])
def test_shares_of_memory_are_between_nothing_and_all(tmp_path: Path, share: str) -> None:
    config = config_of(parameters(gpu_memory_utilization=share))
    with pytest.raises(InvalidConfig, match="must be more than 0 and at most 1"):
        engine_settings(config, files_of(tmp_path))


def test_one_gpu_is_named_and_the_others_counted(tmp_path: Path) -> None:
    config = config_of("instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }")
    with pytest.raises(
        InvalidConfig, match=r"names 2 GPUs, \[0, 1\]; name the first: .*tensor_par"
    ):
        BACKEND.complete(config, files_of(tmp_path))


def test_auto_is_a_gpu_only_where_one_is() -> None:
    assert choose_device("auto").type == ("cuda" if HAS_GPU else "cpu")
    assert choose_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there_is_named_with_the_reason() -> None:
    with pytest.raises(LoadFailed, match="device is 'cuda:99', but ") as error:
        choose_device("cuda:99")
    assert "model parameter device" in error.value.message


def test_the_cache_gets_what_weights_and_steps_leave_of_the_share() -> None:
    use = MemoryUse(total=80 * GIB, others=2 * GIB, weights=16 * GIB, step=GIB, graphs=GIB // 2)
    found = cache_bytes(SETTINGS, use)
    assert found == int(80 * GIB * 0.9) - 2 * GIB - 16 * GIB - GIB - GIB // 2 - GIB // 4
    less = cache_bytes(replace(SETTINGS, gpu_memory_utilization=0.5), use)
    assert found - less == pytest.approx(32 * GIB, abs=2)


def test_a_given_size_of_the_cache_is_kept() -> None:
    settings = replace(SETTINGS, kv_cache_bytes=GIB)
    assert cache_bytes(settings, MemoryUse(total=80 * GIB, others=0, weights=GIB)) == GIB
    assert cache_bytes(settings, None) == GIB


@pytest.mark.rows("R24")
def test_a_model_that_does_not_fit_says_so_with_the_arithmetic() -> None:
    with pytest.raises(LoadFailed) as error:
        cache_bytes(SETTINGS, MemoryUse(total=16 * GIB, others=GIB, weights=16 * GIB))
    for part in ("out of GPU memory", "16384 MiB of the GPU x gpu_memory_utilization 0.9 = 14745",
                 "1024 MiB in use", "16384 MiB of weights", "leave -2919 MiB",
                 "quantization to fp8"):  # fmt: skip
        assert part in error.value.message


@pytest.mark.rows("R24")
def test_memory_that_others_took_meanwhile_is_told() -> None:
    said = "out of GPU memory while loading: CUDA out of memory"
    with pytest.raises(LoadFailed, match=said), memory_told():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")


def test_weights_come_to_the_device_as_they_are_taken() -> None:
    made = random_model("Llama", {"num_hidden_layers": 1})
    config, given = from_hub(made.config.to_dict()), made.state_dict()
    there = Weights(given, config, device=torch.device("meta"))
    taken = take_mlp(there, 0)
    assert isinstance(taken.down, Dense)
    assert taken.down.to(torch.device("meta")).shape == (48, 80)
    assert isinstance(taken.inner, Dense)
    assert taken.inner.data.device.type == "meta"
    assert there.nbytes == sum(tensor.nbytes for tensor in given.values())
    assert Weights(given, config, quantization="fp8").nbytes == there.nbytes // 2


class Failing:
    """A runner with a fault."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        raise self.error


def failing_engine(error: Exception) -> tuple[Engine, list[Message]]:
    """An engine with one request, whose first step fails."""
    sent: list[Message] = []
    scheduler = Scheduler(
        BlockPool(9, 16), max_num_seqs=4, max_batched_tokens=None, block_size=16,
        enable_prefix_caching=False, max_model_len=64, max_num_waiting=4,
    )  # fmt: skip
    state = BatchState(max_num_seqs=4, max_model_len=64, block_size=16)

    def send(message: Message) -> None:
        sent.append(message)
        engine.inbox.put(Quit())

    engine = Engine(scheduler, state, Failing(error), NoGrammars(), send)
    engine.inbox.put(Submit("a", [1, 2, 3], Sampling(max_tokens=4), 0, [], []))
    return engine, sent


def test_a_fault_of_the_device_ends_the_engine() -> None:
    engine, sent = failing_engine(torch.AcceleratorError("illegal memory access"))
    with pytest.raises(torch.AcceleratorError):
        engine.run()
    assert sent == []


def test_a_lack_of_memory_costs_the_batch_alone() -> None:
    engine, sent = failing_engine(torch.OutOfMemoryError("CUDA out of memory"))
    engine.run()
    (frame,) = sent
    assert isinstance(frame, Outputs)
    assert [(output.id, output.finish) for output in frame.outputs] == [("a", "error")]


class Zero:
    """Attention that computes nothing."""

    def hold(self, cache: KvCache) -> None:
        pass

    def begin(self, inputs: StepInputs) -> None:
        pass

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None = None
    ) -> Tensor:
        return torch.zeros_like(query)


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_all_that_a_model_computes_with_lies_on_its_device(family: str) -> None:
    made = random_model(family, {"num_hidden_layers": 1})
    config, there = from_hub(made.config.to_dict()), torch.device("meta")
    model = TorchDecoder(Weights(made.state_dict(), config, device=there), Zero())
    long = torch.zeros(3, dtype=torch.int64, device=there)
    short = torch.zeros(2, dtype=torch.int32, device=there)
    inputs = StepInputs(long, long, long, short, short, short, sample_rows=long[:2])
    # Tensors of two devices in one operation are refused.
    assert model.forward(inputs).shape == (2, config.vocabulary_size)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
@pytest.mark.parametrize("steps", [whole, one_by_one, mixed])
def test_a_model_on_a_gpu_gives_what_float32_gives(steps: Callable[[], Steps]) -> None:
    made = random_model("Llama", {"head_dim": 64})
    with torch.no_grad():
        exact = {key: weight.bfloat16().float() for key, weight in made.state_dict().items()}
    config = from_hub(made.config.to_dict())
    prompts = [[(7 * n + at) % SHAPE["vocab_size"] for at in range(n)] for n in LENGTHS]
    wanted = torch.cat(Paged(config, exact, 16, LENGTHS).run(prompts, whole()))
    there = {key: weight.bfloat16().cuda() for key, weight in exact.items()}

    def make(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        return make_model(Weights(weights, config), cache)

    paged = Paged(config, there, 16, LENGTHS, make)
    found = torch.cat(paged.run(prompts, steps())).cpu()
    # Plain torch on a processor, in bfloat16: 0.0095.
    assert (found - wanted).norm() / wanted.norm() < 1.5e-2


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="no GPU")
@needs_weights
def test_a_real_model_says_on_a_gpu_what_it_says_on_a_processor() -> None:
    prompts = [
        real_tokenizer().encode(text, add_special_tokens=True)
        for text in ("The capital of France is", "1, 2, 3,")
    ]
    there = open_engine(device="cuda", kv_cache_bytes=0).tokens(prompts, GREEDY)
    assert there == open_engine(device="cpu").tokens(prompts, GREEDY)
