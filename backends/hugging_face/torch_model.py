"""A folder's model, by transformers' own classes on torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trivet.backends.api import LoadFailed
from trivet.backends.hugging_face.folder import DTYPES, dtype_name
from trivet.backends.hugging_face.library import transformers


def dtype_of(config: Mapping[str, Any], wanted: str, *, is_gpu: bool) -> torch.dtype:
    """See dtype_name. Raises LoadFailed."""
    name = dtype_name(config, wanted, is_gpu=is_gpu)
    if name not in DTYPES:
        raise LoadFailed(f"parameter dtype is '{name}'; it may be {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found


def load_model(
    kind: Any, folder: Path, architecture: str, dtype: torch.dtype, not_needed: Sequence[str] = ()
) -> Any:
    """The model on the host, opened by a class of transformers. `not_needed`: parts of weights'
    names that a file may lack. Raises LoadFailed."""
    if not hasattr(transformers, architecture):
        raise LoadFailed(
            f"config.json names the architecture '{architecture}', which transformers "
            f"{transformers.__version__} does not have; code that lies in a folder is not run"
        )
    transformers.utils.logging.disable_progress_bar()
    try:
        model, loading = kind.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            dtype=dtype,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise LoadFailed(f"transformers cannot load the folder: {error}") from error
    missing = [
        each for each in loading["missing_keys"] if not any(part in each for part in not_needed)
    ]
    if missing:
        raise LoadFailed(
            f"the weights lack {len(missing)} of the tensors that {type(model).__name__} has, "
            f"such as '{min(missing)}': the folder's files do not belong together"
        )
    return model.eval()
