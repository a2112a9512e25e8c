"""Loads what one process computes of a model: its weights, its cache, and the way to run them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.attention.cache_size import (
    MIB,
    cache_scales,
    size_cache,
    token_bytes_of,
)
from trivet.backends.llm.attention.kv_cache import CPU, KvCache
from trivet.backends.llm.device.devices import (
    MemoryUse,
    adapter_bytes,
    cache_bytes,
    choose_dtype,
    memory_told,
)
from trivet.backends.llm.device.free_cores import FreeCores
from trivet.backends.llm.device.group import ALL, Joined
from trivet.backends.llm.device.staging import make_staging
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import NotComputed
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.registry import FAMILIES, UnknownArchitecture, is_known
from trivet.backends.llm.families.staging import WHOLE, Stage
from trivet.backends.llm.families.stretching import for_length
from trivet.backends.llm.foreign.plan import ModelTensors, Sight
from trivet.backends.llm.foreign.reading import read_foreign
from trivet.backends.llm.implementations import make_held_model, make_model
from trivet.backends.llm.matrices.fp8 import FP8
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.steps.graphs import CudaRecorder, GraphedModel
from trivet.backends.llm.steps.measure import CudaMeter, Meter, largest_step
from trivet.backends.llm.steps.runner import HeldModel, Model, TorchRunner
from trivet.backends.llm.steps.stages import StagedModel, no_states
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles
from trivet.backends.llm.weights.documents import read_json
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.taking import Weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Companion:
    """What a smaller model takes whose cache has blocks of the same numbers."""

    token_bytes: int = 0
    """Of its cache."""
    weight_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """A model, or a rank's part of it, ready to run."""

    config: LlmConfig
    """Of the whole model."""
    device: torch.device
    dtype: torch.dtype
    max_model_len: int
    num_blocks: int
    runner: TorchRunner
    prepare: Callable[[], bool]
    """Work for idle moments; see Engine."""
    adapters: AdapterBank | str
    """Over the model; or why there can be none."""
    sight: Sight | None = None
    """Of a model that reads images."""
    stage: Stage = WHOLE
    weight_bytes: int = 0
    """About what this process holds, and its cache; 0 where it is the only one."""
    cache_bytes: int = 0

    def told(self) -> str:
        """What this process has of the model, for the log."""
        mine = self.stage.layers(self.config.num_layers)
        return (
            f"stage {self.stage.number + 1} of {self.stage.count}, layers {mine.start} to "
            f"{mine.stop - 1}: {self.weight_bytes // MIB} MiB of weights, "
            f"{self.cache_bytes // MIB} MiB of cache in {self.num_blocks} blocks"
        )


def load_part(
    settings: EngineSettings,
    device: torch.device,
    joined: Joined = ALL,
    families: Sequence[Family] = FAMILIES,
    beside: Companion = Companion(),
) -> tuple[LoadedPart, TokenizerFiles]:
    """What the settings name, a model of one of the families, and its tokenizer. `beside`: what is
    to be left to another. Raises LoadFailed."""
    dtype = choose_dtype(settings.dtype, device)
    stage = joined.neighbours.stage
    config, weights, files = read_model(settings, dtype, families, stage)
    return build_part(settings, config, weights, dtype, device, joined, beside), files


def read_model(
    settings: EngineSettings,
    dtype: torch.dtype,
    families: Sequence[Family] = FAMILIES,
    stage: Stage = WHOLE,
) -> tuple[LlmConfig, Mapping[str, Stored], TokenizerFiles]:
    """By the family that knows the model, or by transformers' classes: also where the family does
    not compute what the config says."""
    path = Path(settings.model_path)
    if path.is_dir() and not is_known(read_json(path / "config.json"), families):
        return _read_foreign(path, dtype, settings)
    try:
        return load_model(path, dtype, families, stage)
    except NotComputed as reason:
        # A table of GGUF's keys is only as good as what is known of the family behind it.
        if not path.is_dir() and not isinstance(reason, UnknownArchitecture):
            raise
        log.info("not computed by its family: %s", reason)
        try:
            return _read_foreign(path, dtype, settings)
        except LoadFailed as error:
            raise LoadFailed(f"{reason}; nor by transformers' own classes: {error}") from error


def _read_foreign(
    path: Path, dtype: torch.dtype, settings: EngineSettings
) -> tuple[LlmConfig, Mapping[str, Stored], TokenizerFiles]:
    if settings.pipeline_parallel_size > 1:
        raise LoadFailed(
            "transformers' own classes, which compute models without a family, compute all layers; "
            f"pipeline_parallel_size is {settings.pipeline_parallel_size} (model parameter)"
        )
    return read_foreign(path, dtype, settings)


def build_part(
    settings: EngineSettings,
    config: LlmConfig,
    tensors: Mapping[str, Stored],
    dtype: torch.dtype,
    device: torch.device,
    joined: Joined = ALL,
    beside: Companion = Companion(),
) -> LoadedPart:
    """One rank's part of a model of these tensors: of several stages, those of its own. Raises
    LoadFailed."""
    config = for_length(config, settings.max_model_len)
    max_model_len = min(settings.max_model_len or config.max_positions, config.max_positions)
    settings = replace(settings, max_model_len=max_model_len)
    adapters = _adapters(settings, dtype, device)
    bank = adapters if isinstance(adapters, AdapterBank) else None
    stage = joined.neighbours.stage
    mine = stage.of(config)
    weights = Weights(tensors, mine, joined.ranks, device, settings.quantization, bank)
    like = no_states(config.hidden_size, dtype, device)
    scales = cache_scales(tensors, mine)
    if device.type == "cpu":
        model, num_blocks = _load_plain(settings, weights, dtype, scales, beside)
        prepare = _no_work
    else:
        held, num_blocks = _load_measured(
            settings, weights, dtype, device, scales, beside=beside, stage=stage
        )
        model, prepare = _recorded(held, settings, device, bank, None if stage.is_first else like)
    runner = TorchRunner(
        StagedModel(model, joined.neighbours, like) if stage.count > 1 else model,
        make_staging(device),
        max_num_seqs=settings.max_num_seqs,
        ranks=joined.ranks,
        adapters=bank,
        cores=_free_cores(settings, device),
    )
    sight = tensors.sight if isinstance(tensors, ModelTensors) else None
    made = LoadedPart(
        config, device, dtype, max_model_len, num_blocks, runner, prepare, adapters, sight
    )
    if settings.num_ranks == 1:
        return made
    each = token_bytes_of(weights.config, kept_as(settings, dtype))
    cache_size = num_blocks * settings.block_size * each
    return replace(made, stage=stage, weight_bytes=weights.nbytes, cache_bytes=cache_size)


def _free_cores(settings: EngineSettings, device: torch.device) -> FreeCores | None:
    """Of a processor, where nobody has said how many of them are to compute."""
    if device.type != "cpu" or settings.num_threads or settings.num_ranks > 1:
        return None
    return FreeCores(torch.get_num_threads(), torch.set_num_threads)


def _adapters(
    settings: EngineSettings, dtype: torch.dtype, device: torch.device
) -> AdapterBank | str:
    """What adapts a model's products; or why nothing does."""
    if not settings.max_loras:
        return "the base takes none (model parameter max_loras is 0)"
    if settings.pipeline_parallel_size > 1:
        return (
            "the base is computed in stages, in which none are (model parameter "
            f"pipeline_parallel_size is {settings.pipeline_parallel_size}; tensor_parallel_size "
            "takes adapters)"
        )
    return AdapterBank(dtype, device, settings.max_lora_rank)


def _recorded(
    model: HeldModel,
    settings: EngineSettings,
    device: torch.device,
    adapters: AdapterBank | None,
    like: Tensor | None,
) -> tuple[Model, Callable[[], bool]]:
    """With decode steps that are recorded, if they can be, and what records them. `like`: what the
    states of a later stage are."""
    if not settings.cuda_graphs or not model.is_recordable:
        log.info("decode steps are not recorded as CUDA graphs")
        return model, _no_work
    graphed = GraphedModel(
        model,
        CudaRecorder(),
        device,
        max_num_seqs=settings.max_num_seqs,
        max_num_blocks=-(-settings.max_model_len // settings.block_size) + 1,
        adapters=adapters,
        like=like,
    )
    return graphed, graphed.record_next


def _load_plain(
    settings: EngineSettings,
    weights: Weights,
    dtype: torch.dtype,
    scales: list[tuple[float, float]],
    beside: Companion,
) -> tuple[Model, int]:
    """On a processor, whose cache is of a given size. `scales`: of a cache of 8 bits."""
    config, kind = weights.config, kept_as(settings, dtype)
    num_blocks = size_cache(config, settings, kind, cache_bytes(settings, None), beside.token_bytes)
    num_blocks = weights.ranks.least(num_blocks)
    cache = KvCache(config, num_blocks, settings.block_size, kind, CPU, scales, dtype)
    return make_model(weights, cache), num_blocks


def kept_as(settings: EngineSettings, dtype: torch.dtype) -> torch.dtype:
    """Keys and values of a model that computes with `dtype`."""
    return FP8 if settings.kv_cache_dtype == "fp8" else dtype


def _load_measured(
    settings: EngineSettings,
    weights: Weights,
    dtype: torch.dtype,
    device: torch.device,
    scales: list[tuple[float, float]],
    meter: Meter | None = None,
    beside: Companion = Companion(),
    stage: Stage = WHOLE,
) -> tuple[HeldModel, int]:
    """On a GPU: the cache gets what weights and the largest step leave. `scales`: of a cache of 8
    bits."""
    meter = meter or CudaMeter(device)
    config = weights.config
    kind = kept_as(settings, dtype)
    use = MemoryUse.before(device, weights.nbytes + beside.weight_bytes)
    cache_bytes(replace(settings, kv_cache_bytes=0), use)  # refuses what cannot fit
    with memory_told():
        small = KvCache(config, 2, settings.block_size, kind, device, scales)
        model = make_held_model(weights, small, settings.attention)
        loaded = meter.allocated()
        like = None if stage.is_first else no_states(config.hidden_size, dtype, device)
        step = partial(largest_step, model, settings, device, stage, like)
        step()  # compiles kernels, which takes memory of its own
        peak = meter.peak(step)
        if isinstance(weights.tensors, ModelTensors) and weights.tensors.sight is not None:
            peak = max(peak, meter.peak(weights.tensors.sight.look_at_most))
        # What a recorded step gives: logits in both types, or states.
        wide = weights.whole.vocabulary_size if stage.is_last else config.hidden_size
        graphs = settings.max_num_seqs * wide * (dtype.itemsize + 4)
        use = replace(
            use,
            weights=loaded + beside.weight_bytes,
            step=peak - loaded + _under_way_bytes(settings, weights, dtype, device, stage),
            graphs=graphs if settings.cuda_graphs else 0,
        )
        use = _with_adapters(use, settings, weights, device)
        size_bytes = cache_bytes(settings, use)
        num_blocks = size_cache(config, settings, kind, size_bytes, beside.token_bytes)
        num_blocks = weights.ranks.least(num_blocks)
        model.hold(KvCache(config, num_blocks, settings.block_size, kind, device, scales))
    return model, num_blocks


def _under_way_bytes(
    settings: EngineSettings,
    weights: Weights,
    dtype: torch.dtype,
    device: torch.device,
    stage: Stage,
) -> int:
    """What the steps under way of a model in stages keep beside what is computed: states that came
    and states on their way, or logits."""
    if stage.count == 1:
        return 0
    states = settings.step_tokens(device.type) * weights.whole.hidden_size * dtype.itemsize
    logits = settings.max_num_seqs * weights.whole.vocabulary_size * torch.float32.itemsize
    return states + stage.count * (logits if stage.is_last else states)


def _with_adapters(
    use: MemoryUse, settings: EngineSettings, weights: Weights, device: torch.device
) -> MemoryUse:
    """With what adapters may take, which they are told."""
    bank = weights.adapters
    if bank is None:
        return use
    size, rank, places = bank.dtype.itemsize, settings.max_lora_rank, bank.places.all
    # Each in its slot and in a step's stack.
    most = settings.max_loras * 2 * size * sum(place.num_numbers(rank) for place in places)
    columns = settings.max_loras * rank * max((len(place.parts) for place in places), default=0)
    # What rows are lowered to, and which of it is not theirs.
    lowered = settings.step_tokens(device.type) * columns * (size + 1)
    given = weights.ranks.least(adapter_bytes(settings, use, most + lowered))
    bank.budget = given * most // max(most + lowered, 1)
    return replace(use, adapters=given)


def _no_work() -> bool:
    return False
