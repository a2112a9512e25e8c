"""Loads a smaller model that guesses what a larger one says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention.cache_size import token_bytes_of
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.device.devices import choose_dtype, memory_told
from trivet.backends.llm.device.group import Alone
from trivet.backends.llm.device.staging import make_staging
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.stretching import for_length
from trivet.backends.llm.implementations import make_model
from trivet.backends.llm.loading import Companion, LoadedPart, read_model
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.steps.runner import TorchRunner
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.taking import Weights


@dataclass(frozen=True, slots=True)
class ReadDraft:
    """A smaller model, read but not yet where it computes."""

    path: str
    config: LlmConfig
    weights: Weights
    tokenizer: Tokenizer
    dtype: torch.dtype
    device: torch.device

    @property
    def companion(self) -> Companion:
        """What it takes beside the larger one."""
        is_there = self.device.type != "cpu"
        return Companion(
            token_bytes_of(self.config, self.dtype), self.weights.nbytes if is_there else 0
        )


def read_draft(settings: EngineSettings, device: torch.device) -> ReadDraft | None:
    """The model of `speculative_model`; None where there is none. Raises LoadFailed."""
    path = settings.speculative_model
    if not path:
        return None
    dtype = choose_dtype(settings.dtype, device)
    own = replace(settings, model_path=path, quantization="", max_loras=0)
    tensors: Mapping[str, Stored]
    config, tensors, files = read_model(own, dtype)
    config = for_length(config, settings.max_model_len)
    if config.keeps_states:
        raise _refused(path, f"its architecture '{config.architecture}' keeps states")
    weights = Weights(tensors, config, Alone(), device, "", None)
    return ReadDraft(path, config, weights, Tokenizer.from_files(files), dtype, device)


def load_draft(
    read: ReadDraft, settings: EngineSettings, loaded: LoadedPart, tokenizer: Tokenizer
) -> TorchRunner:
    """Over a cache of as many blocks as that of the larger one, which `tokenizer` is of. Raises
    LoadFailed."""
    if difference := tokenizer.difference(read.tokenizer):
        raise _refused(read.path, f"it has another vocabulary: {difference}")
    if read.config.vocabulary_size > loaded.config.vocabulary_size:
        raise _refused(
            read.path,
            f"its vocabulary has {read.config.vocabulary_size} tokens, that of the model which it "
            f"guesses for {loaded.config.vocabulary_size}",
        )
    if read.config.max_positions < loaded.max_model_len:
        raise _refused(
            read.path,
            f"it takes {read.config.max_positions} tokens, the model that it guesses for "
            f"{loaded.max_model_len} (model parameter max_model_len)",
        )
    with memory_told():
        cache = KvCache(
            read.config, loaded.num_blocks, settings.block_size, read.dtype, read.device
        )
        model = make_model(read.weights, cache, settings.attention)
    return TorchRunner(model, make_staging(read.device))


def _refused(path: str, why: str) -> LoadFailed:
    return LoadFailed(f"'{path}' cannot guess tokens (model parameter speculative_model): {why}")
