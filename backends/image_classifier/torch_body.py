"""Transformers' own class on torch."""

import numpy as np
import torch

from trivet.backends.api import Placement
from trivet.backends.hugging_face.image_preprocessing import Pixels
from trivet.backends.hugging_face.library import transformers
from trivet.backends.hugging_face.torch_model import dtype_of, load_model
from trivet.backends.image_classifier.folder import Folder
from trivet.backends.torch_threads import THREADS


class TorchBody:
    """A Body."""

    def __init__(self, folder: Folder, placement: Placement, dtype: str) -> None:
        """Raises LoadFailed."""
        THREADS.use(placement.cpu_threads)
        is_gpu = placement.kind == "KIND_GPU"
        self._device = torch.device("cuda", placement.device_id) if is_gpu else torch.device("cpu")
        self._dtype = dtype_of(folder.config, dtype, is_gpu=is_gpu)
        kind = transformers.AutoModelForImageClassification
        self._model = load_model(kind, folder.path, folder.architecture, self._dtype).to(
            self._device
        )

    def compute(self, pixels: Pixels) -> np.ndarray:
        """See Body."""
        with torch.inference_mode():
            found = self._model(**{name: self._bring(array) for name, array in pixels.items()})
            logits: np.ndarray = found.logits.to("cpu", torch.float32).numpy()
        return logits

    def _bring(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array).to(self._device)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
