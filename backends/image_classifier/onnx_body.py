"""An ONNX file of the folder, by ONNX Runtime."""

from pathlib import Path

import numpy as np

from trivet.backends.api import LoadFailed, Placement
from trivet.backends.hugging_face.image_preprocessing import Pixels
from trivet.backends.hugging_face.onnx_session import open_session

_LOGITS = "logits"


class OnnxBody:
    """A Body."""

    def __init__(self, path: Path, placement: Placement) -> None:
        """Raises LoadFailed."""
        self._session = open_session(path, placement)
        inputs = [each.name for each in self._session.get_inputs()]
        if len(inputs) != 1:
            raise LoadFailed(f"{path.name} has the inputs {inputs}; an image classifier has one")
        (self._input,) = inputs
        outputs = [each.name for each in self._session.get_outputs()]
        if _LOGITS not in outputs and len(outputs) > 1:
            raise LoadFailed(f"{path.name} has no output {_LOGITS}; it has {outputs}")
        self._output = _LOGITS if _LOGITS in outputs else outputs[0]

    def compute(self, pixels: Pixels) -> np.ndarray:
        """See Body. The file may call its input otherwise than the processor does."""
        values = pixels.get(self._input, next(iter(pixels.values())))
        (logits,) = self._session.run([self._output], {self._input: values})
        found: np.ndarray = logits.astype(np.float32, copy=False)
        return found
