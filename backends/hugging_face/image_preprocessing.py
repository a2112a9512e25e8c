"""Images to what the model reads, by the folder's own image processor of transformers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trivet.backends.api import InvalidRequest, LoadFailed
from trivet.backends.hugging_face.files import PREPROCESSOR
from trivet.backends.hugging_face.library import transformers

Pixels = Mapping[str, np.ndarray]
"""The model's inputs for one image, each with a first dimension of 1."""


class Preprocessor:
    """Used by several threads: transformers' processors keep nothing between calls."""

    def __init__(self, folder: Path) -> None:
        """Raises LoadFailed."""
        kind: Any = transformers.AutoImageProcessor  # untyped
        try:
            self._processor = kind.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise LoadFailed(
                f"transformers {transformers.__version__} has no image processor for "
                f"{PREPROCESSOR}: {error}"
            ) from error

    def __call__(self, image: Any) -> Pixels:
        """One at a time, so that many large images are never in memory together. Raises
        InvalidRequest."""
        try:
            made = self._processor(images=image, return_tensors="pt")
        except ValueError as error:
            raise InvalidRequest(f"the model's image processor refuses it: {error}") from None
        return {name: values.numpy() for name, values in made.items()}
