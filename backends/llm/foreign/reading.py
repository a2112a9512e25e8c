"""Reads a Hugging Face folder, or a GGUF file, into a model of transformers: our reading of files,
its classes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.foreign.classes import INSTALL, Found, find_class
from trivet.backends.llm.foreign.config import ForeignConfig
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.gguf_files import read_gguf
from trivet.backends.llm.foreign.plan import ModelTensors, Sight
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.text.image_layout import ImageLayout, read_layout
from trivet.backends.llm.text.tokenizer_files import (
    TokenizerFiles,
    hub_tokenizer,
    read_tokenizer,
)
from trivet.backends.llm.weights.documents import read_json
from trivet.backends.llm.weights.files import read_safetensors

_REPORTED = {
    "missing_keys": "the model's files lack {count} weights that {name} has, '{first}' the first",
    "mismatched_keys": "{count} weights are of another shape than {name}'s, '{first}' the first",
    "unexpected_keys": (
        "the model's files have {count} weights that {name} does not know, '{first}' the first: "
        "the model is of another shape than its config says"
    ),
    "error_msgs": "transformers cannot load {name}: {first}",
}
"""What transformers tells of a load that must not be, and what is said of it."""


def read_foreign(
    path: Path, dtype: torch.dtype, settings: EngineSettings
) -> tuple[ForeignConfig, ModelTensors, TokenizerFiles]:
    """Config, weights and tokenizer of a model that transformers knows. Raises LoadFailed."""
    layout = None
    if path.is_dir():
        found = find_class(read_json(path / "config.json"))
        files = hub_tokenizer(path)
        layout = read_layout(path)
        if layout is not None:
            _check_image_token(layout, files)
        model = make_model(found, read_safetensors(path), dtype)
    else:
        found, tensors, files = read_gguf(path, dtype)
        model = make_model(found, tensors, dtype)
    own_attention = str(model.config._attn_implementation)  # noqa: SLF001  # the only way
    # Imports transformers, as `find_class` has: only where it is needed.
    from trivet.backends.llm.foreign.planning import AS_ONE_BATCH, plan_model

    plan = plan_model(model, dtype, settings.max_num_seqs)
    if layout is None:
        return plan.config, ModelTensors(model, plan), files
    if plan.name != AS_ONE_BATCH:
        raise LoadFailed(
            f"{found.name} of transformers reads images, and is computed {plan.name}: images are "
            f"taken by models that are computed {AS_ONE_BATCH}"
        )
    sight = _sight_of(model, path, layout, settings, own_attention)
    return plan.config, ModelTensors(model, plan, sight), files


def _check_image_token(layout: ImageLayout, files: TokenizerFiles) -> None:
    found = read_tokenizer(files.json).token_to_id(layout.image_token)
    if found != layout.image_token_id:
        raise LoadFailed(
            f"image_token_id is {layout.image_token_id} (config.json), but the tokenizer's "
            f"'{layout.image_token}' is {found}"
        )


def _sight_of(
    model: Any, folder: Path, layout: ImageLayout, settings: EngineSettings, own_attention: str
) -> Sight:
    try:
        from trivet.backends.llm.foreign.sight import ModelSight
    except ImportError as error:
        raise LoadFailed(
            f"the model reads images, and Pillow, which decodes them, is missing: {INSTALL}"
        ) from error
    with torch.no_grad():
        return ModelSight(model, folder, layout, settings.image_bounds, own_attention)


def make_model(found: Found, tensors: dict[str, Tensor], dtype: torch.dtype) -> Any:
    """A model with these weights, by the names that files have. Raises LoadFailed."""
    from trivet.backends.hugging_face.library import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        model, report = found.kind.from_pretrained(
            None,
            config=found.config,
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
        )
    except FAULTS as error:
        raise LoadFailed(f"transformers cannot load the folder: {error}") from error
    _refuse_other_weights(found, report)
    return model.eval()


def _refuse_other_weights(found: Found, report: dict[str, Any]) -> None:
    for kind, told in _REPORTED.items():
        if keys := sorted(map(str, report[kind])):
            raise LoadFailed(told.format(count=len(keys), name=found.name, first=keys[0]))
