"""All of a GPU's way at once: measured cache, fused kernels, recorded steps, tokens that stay on
the device, steps launched ahead. The tokens are those of plain torch, one step after the other."""

from collections.abc import Callable

import pytest
import torch
from late_device import LateRunner
from paged_models import random_model
from torch import Tensor

from trivet.backends.api import Sampling
from trivet.backends.llm import loading
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.device.devices import MemoryUse
from trivet.backends.llm.device.staging import DeviceStaging
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.messages import Message, Outputs, Quit, Submit
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.sampling.grammar import NoGrammars
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.steps.graphs import GraphedModel
from trivet.backends.llm.steps.runner import TorchRunner
from trivet.backends.llm.weights.taking import Weights

MOST_SEQUENCES, MODEL_LEN, BLOCK_SIZE, NUM_BLOCKS = 4, 64, 16, 12
LENGTHS = (5, 30, 1, 17, 9)


class Again:
    """A Recorder: computes again over the same memory."""

    def __init__(self) -> None:
        self.num_replays = 0

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        compute()

        def replay() -> Tensor:
            self.num_replays += 1
            return compute()

        return replay


class Meter:
    """Memory as a GPU would report it."""

    def allocated(self) -> int:
        return 1 << 20

    def peak(self, run: Callable[[], None]) -> int:
        run()
        return 2 << 20


def tokens(runner: TorchRunner, *, overlaps: bool) -> dict[str, list[int]]:
    """Greedy, drawn, and one whose penalties need the host; more than run at a time."""
    found: dict[str, list[int]] = {}
    left = set(map(str, range(len(LENGTHS))))

    def send(message: Message) -> None:
        assert isinstance(message, Outputs)
        for output in message.each():
            assert not output.error
            found.setdefault(output.id, []).extend(output.token_ids)
            if output.finish:
                left.discard(output.id)
        if not left:
            engine.inbox.put(Quit())

    late = LateRunner(runner)
    engine = Engine(
        Scheduler(
            BlockPool(NUM_BLOCKS, BLOCK_SIZE), max_num_seqs=MOST_SEQUENCES, max_batched_tokens=24,
            block_size=BLOCK_SIZE, enable_prefix_caching=True, max_model_len=MODEL_LEN,
        ),
        BatchState(
            max_num_seqs=MOST_SEQUENCES, max_model_len=MODEL_LEN, block_size=BLOCK_SIZE
        ),
        late, NoGrammars(), send, late if overlaps else None,
    )  # fmt: skip
    for number, length in enumerate(LENGTHS):
        sampling = Sampling(
            temperature=0.9 if number == 1 else 0.0,
            top_p=0.9 if number == 1 else 1.0,
            repetition_penalty=1.3 if number == 4 else 1.0,
            max_tokens=6 + number,
            ignore_eos=True,
        )
        prompt = [(11 * number + 7 * place) % 120 for place in range(length)]
        engine.inbox.put(Submit(f"{number}", prompt, sampling, number, [], []))
    engine.run()
    assert late.most_under_way == (2 if overlaps else 0)
    return found


def test_an_engine_as_on_a_gpu_gives_the_tokens_of_plain_torch(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_model("Llama", {"head_dim": 16, "num_hidden_layers": 1})
    config, weights = from_hub(made.config.to_dict()), made.state_dict()
    monkeypatch.setattr(
        MemoryUse, "before", classmethod(lambda cls, device, size: cls(1 << 30, 0, size))
    )
    settings = EngineSettings(
        "model", attention="triton", max_model_len=MODEL_LEN, max_num_seqs=MOST_SEQUENCES,
        max_batched_tokens=24,
    )  # fmt: skip
    held, num_blocks = loading._load_measured(
        settings, Weights(weights, config), torch.float32, device, [(1.0, 1.0)], Meter(),
    )  # fmt: skip
    assert held.is_recordable
    assert num_blocks >= NUM_BLOCKS
    recorder = Again()
    model = GraphedModel(
        held, recorder, device, max_num_seqs=MOST_SEQUENCES,
        max_num_blocks=-(-MODEL_LEN // BLOCK_SIZE) + 1,
    )  # fmt: skip
    while model.record_next():
        pass
    runner = TorchRunner(model, DeviceStaging(device), max_num_seqs=MOST_SEQUENCES)
    cache = KvCache(config, NUM_BLOCKS, BLOCK_SIZE, torch.float32)
    plain = TorchDecoder(Weights(weights, config), TorchAttention(cache, config.attentions))

    found = tokens(runner, overlaps=True)

    assert found == tokens(TorchRunner(plain), overlaps=False)
    assert recorder.num_replays > 5
