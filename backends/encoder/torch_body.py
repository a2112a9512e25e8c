"""The model itself, by transformers' own classes on torch."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from trivet.backends.api import LoadFailed, Placement
from trivet.backends.api.encoder import Task
from trivet.backends.encoder.computing import Computed, Padded
from trivet.backends.encoder.folder import Folder
from trivet.backends.encoder.turns import InOneThread
from trivet.backends.hugging_face.library import transformers
from trivet.backends.hugging_face.torch_model import dtype_of, load_model
from trivet.backends.torch_threads import THREADS

TYPES = "token_type_ids"
_CLASSES = {
    Task.EMBED: transformers.AutoModel,
    Task.CLASSIFY: transformers.AutoModelForSequenceClassification,
    Task.SCORE: transformers.AutoModelForSequenceClassification,
    Task.TOKENS: transformers.AutoModelForTokenClassification,
}
_NOT_NEEDED = ("pooler", "position_ids")
"""Parts of weights' names that a file may lack: nothing that is asked for here reads them."""


class TorchBody:
    """A Body."""

    arrays = torch

    def __init__(
        self, folder: Folder, placement: Placement, dtype: str, turns: InOneThread
    ) -> None:
        """In one of these turns. Raises LoadFailed."""
        THREADS.use(placement.cpu_threads)
        self.turns = turns
        is_gpu = placement.kind == "KIND_GPU"
        self._device = torch.device("cuda", placement.device_id) if is_gpu else torch.device("cpu")
        self._dtype = dtype_of(folder.config, dtype, is_gpu=is_gpu)
        self._model = _load(folder, self._dtype).to(self._device)
        taken = inspect.signature(self._model.forward).parameters
        has_types = int(folder.config.get("type_vocab_size") or 2) > 1
        self._takes_types = has_types and TYPES in taken and TYPES in _tokenizer_makes(folder)
        self._is_embedder = folder.task is Task.EMBED

    def compute(self, padded: Padded) -> Computed:
        """See Body."""
        with torch.inference_mode():
            mask = self._bring(padded.mask)
            given = {"input_ids": self._bring(padded.ids), "attention_mask": mask}
            if self._takes_types:
                given[TYPES] = self._bring(padded.types)
            found = self._model(**given)
            values = found.last_hidden_state if self._is_embedder else found.logits
        return Computed(values, mask)

    def weights(self, path: Path) -> dict[str, Any]:
        """See Body. Raises LoadFailed."""
        file, older = path / "model.safetensors", path / "pytorch_model.bin"
        if file.exists():
            found = load_file(file)
        elif older.exists():
            found = torch.load(older, map_location="cpu", weights_only=True)
        else:
            raise LoadFailed(f"the folder has no {path.name}/{file.name}")
        return {k: v.to(self._device, self._dtype) for k, v in found.items()}

    def on_host(self, values: Any) -> np.ndarray:
        """See Body."""
        found: np.ndarray = values.detach().to("cpu", torch.float32).numpy()
        return found

    def _bring(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _tokenizer_makes(folder: Folder) -> Sequence[str]:
    """Which inputs transformers' tokenizer for the folder would make: not every one tells the two
    texts of a pair apart, whatever the model could take."""
    given = folder.tokenizer.get("model_input_names")
    if isinstance(given, list):
        return given
    name = folder.tokenizer.get("tokenizer_class")
    if not isinstance(name, str):
        name = TOKENIZER_MAPPING_NAMES.get(str(folder.config.get("model_type")))
    kind = getattr(transformers, name or "PreTrainedTokenizerFast", None)
    return tuple(getattr(kind, "model_input_names", ()))


def _load(folder: Folder, dtype: torch.dtype) -> Any:
    name = folder.architecture
    # The one family whose bodies transformers opens with their decoders.
    own = getattr(transformers, name, None) if name.endswith("EncoderModel") else None
    kind = own or _CLASSES[folder.task]
    return load_model(kind, folder.path, name, dtype, _NOT_NEEDED)
