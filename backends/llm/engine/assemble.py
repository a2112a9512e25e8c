"""Builds an engine from its settings. In the engine's process."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from trivet.backends.api import GeneratorInfo, LoadFailed
from trivet.backends.llm.attention.cache_size import token_bytes_of
from trivet.backends.llm.device.devices import choose_device
from trivet.backends.llm.device.group import join
from trivet.backends.llm.engine.adapting import Slots, make_desk
from trivet.backends.llm.engine.embeddings import Embeddings
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.engine.flight import Runs
from trivet.backends.llm.engine.image_desk import ImageDesk
from trivet.backends.llm.engine.seeing import SeeingRunner
from trivet.backends.llm.loading import Companion, LoadedPart, kept_as, load_part
from trivet.backends.llm.messages import Message
from trivet.backends.llm.ranks.processes import (
    RankedRunner,
    RankedSlots,
    RankProcesses,
    StagedRunner,
)
from trivet.backends.llm.sampling.grammar import Grammars
from trivet.backends.llm.scheduling.batch_state import BatchState
from trivet.backends.llm.scheduling.blocks import BlockPool
from trivet.backends.llm.scheduling.scheduler import Scheduler
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.speculation.draft_loading import read_draft
from trivet.backends.llm.speculation.making import make_speculation
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles

log = logging.getLogger(__name__)


def make_engine(
    settings: EngineSettings, send: Callable[[Message], None]
) -> tuple[Engine, dict[str, Any]]:
    """A loaded engine and what it says of itself. Raises LoadFailed."""
    torch.set_num_threads(settings.num_threads or len(os.sched_getaffinity(0)))
    others: RankProcesses | None = None
    draft = (
        read_draft(settings, choose_device(settings.device)) if settings.speculative_model else None
    )
    beside = draft.companion if draft else Companion()
    if settings.num_ranks > 1:
        loaded, files, others = _load_ranks(settings, beside)
    else:
        loaded, files = load_part(settings, choose_device(settings.device), beside=beside)
    runner: Runs = loaded.runner if others is None else RankedRunner(loaded, others)
    prepare = runner.prepare if isinstance(runner, RankedRunner) else loaded.prepare
    stages = None
    if others is not None and loaded.stage.count > 1:
        stages = StagedRunner(loaded, others), loaded.stage.count
    tokenizer = Tokenizer.from_files(files)
    vocabulary_size = loaded.config.vocabulary_size
    _check_ids(tokenizer, vocabulary_size)
    grammars = Grammars(tokenizer.to_json(), tokenizer.eos_token_ids[0], vocabulary_size)
    runner, images = _seeing(settings, loaded, runner)
    state = make_state(settings, loaded)
    speculation = make_speculation(settings, loaded, tokenizer, state, draft)
    # A processor that computes has no time to plan the next step meanwhile, and what is guessed
    # stands behind what the last step has told.
    is_launched = loaded.device.type == "cuda" and speculation is None
    launcher = runner if is_launched else None
    engine = Engine(
        make_scheduler(settings, loaded), state, runner, grammars, send,
        launcher, prepare,
        make_desk(loaded.adapters, settings.max_loras, send, _slots(loaded, others)),
        keeps_states=loaded.config.keeps_states, images=images, speculation=speculation,
        stages=stages,
    )  # fmt: skip
    info = GeneratorInfo(
        max_model_len=loaded.max_model_len,
        vocabulary_size=vocabulary_size,
        max_logprobs=settings.max_logprobs,
        dtype=str(loaded.dtype).removeprefix("torch."),
        architecture=loaded.config.architecture,
        eos_token_ids=tokenizer.eos_token_ids,
        device=loaded.device.type,
        sampling_defaults=_sampling_defaults(settings, files),
        host_cache_bytes=_host_cache_bytes(settings, loaded, beside),
        max_num_requests=settings.max_num_seqs + settings.max_num_waiting,
    )
    return engine, asdict(info)


def _host_cache_bytes(settings: EngineSettings, loaded: LoadedPart, beside: Companion) -> int:
    if loaded.device.type != "cpu":
        return 0
    kept = kept_as(settings, loaded.dtype)
    token_bytes = token_bytes_of(loaded.config, kept) + beside.token_bytes
    return loaded.num_blocks * settings.block_size * token_bytes


def _slots(loaded: LoadedPart, others: RankProcesses | None) -> Slots | None:
    bank = loaded.adapters
    return None if others is None or isinstance(bank, str) else RankedSlots(bank, others)


def _seeing(
    settings: EngineSettings, loaded: LoadedPart, runner: Runs
) -> tuple[Runs, ImageDesk | None]:
    """What else a model has that reads images: of more rows of them than its cache has tokens,
    nothing could be made."""
    if loaded.sight is None:
        return runner, None
    embeddings = Embeddings(loaded.num_blocks * settings.block_size)
    desk = ImageDesk(loaded.sight, embeddings)
    return SeeingRunner(runner, loaded.sight, embeddings), desk


def _check_ids(tokenizer: Tokenizer, vocabulary_size: int) -> None:
    """Raises LoadFailed for a tokenizer that has tokens which the model has not."""
    if tokenizer.num_ids > vocabulary_size:
        raise LoadFailed(
            f"the tokenizer has {tokenizer.num_ids} token ids, but the model's vocabulary has "
            f"{vocabulary_size} (vocab_size in config.json, the rows of the embedding in GGUF): "
            "they are of two models, or tokens were added to tokenizer.json that the model was not "
            "made larger for"
        )


def _load_ranks(
    settings: EngineSettings, beside: Companion
) -> tuple[LoadedPart, TokenizerFiles, RankProcesses]:
    """Rank 0's part, while the others load theirs. Raises LoadFailed."""
    if settings.in_process:
        raise LoadFailed(
            f"in_process is true, tensor_parallel_size {settings.tensor_parallel_size} and "
            f"pipeline_parallel_size {settings.pipeline_parallel_size}: ranks need an engine in a "
            "process of its own (model parameters; --llm-in-process)"
        )
    choose_device(settings.device, settings.num_ranks - 1)  # the last is there, so all are
    device = choose_device(settings.device)
    others = RankProcesses.start(settings)
    try:
        joined = join(0, settings, device, others.meeting)
        loaded, files = load_part(settings, device, joined, beside=beside)
    except BaseException:
        others.close()
        raise
    others.note_loaded()
    log.info("rank 0, %s", loaded.told())
    return loaded, files, others


def _sampling_defaults(settings: EngineSettings, files: TokenizerFiles) -> Mapping[str, float]:
    recommended = dict(files.sampling_defaults)
    if settings.generation_config != "auto" or not recommended:
        return {}
    log.info("where requests do not say: %s (generation_config.json)", recommended)
    return recommended


def make_scheduler(settings: EngineSettings, loaded: LoadedPart) -> Scheduler:
    """For the blocks that were loaded."""
    return Scheduler(
        BlockPool(loaded.num_blocks, settings.block_size),
        max_num_seqs=settings.max_num_seqs,
        max_batched_tokens=settings.step_tokens(loaded.device.type),
        block_size=settings.block_size,
        enable_prefix_caching=settings.prefix_caching and not loaded.config.keeps_states,
        max_model_len=loaded.max_model_len,
        max_num_waiting=settings.max_num_waiting,
        num_stages=settings.pipeline_parallel_size,
    )


def make_state(settings: EngineSettings, loaded: LoadedPart) -> BatchState:
    """For as many sequences as may run."""
    return BatchState(
        max_num_seqs=settings.max_num_seqs,
        max_model_len=loaded.max_model_len,
        block_size=settings.block_size,
        has_adapters=not isinstance(loaded.adapters, str),
    )
