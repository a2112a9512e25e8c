"""The model itself: transformers' class on torch, or an ONNX file that lies in the folder."""

from typing import Protocol

import numpy as np

from trivet.backends.api import Placement
from trivet.backends.hugging_face.image_preprocessing import Pixels
from trivet.backends.image_classifier.folder import Folder


class Body(Protocol):
    """Gives logits."""

    def compute(self, pixels: Pixels) -> np.ndarray:
        """float32 [rows, labels], in the instance's thread."""


def open_body(compute: str, folder: Folder, placement: Placement, dtype: str) -> Body:
    """`compute`: "torch" or "onnx". Raises LoadFailed, ModuleNotFoundError."""
    if compute == "onnx":
        from trivet.backends.image_classifier.onnx_body import OnnxBody

        assert folder.onnx is not None, "checked before"
        return OnnxBody(folder.onnx, placement)
    from trivet.backends.image_classifier.torch_body import TorchBody

    return TorchBody(folder, placement, dtype)
