"""Models in Python, as Triton's Python backend takes them."""

from pathlib import Path

import numpy as np
from acceptance.kind import Kind, Prediction, model_folder

CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "LENGTH", "data_type": "TYPE_INT32", "dims": [1]})
        config.set_max_batch_size(8)
        return config

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        lengths = np.array([[len(text)] for (text,) in texts], np.int32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("LENGTH", lengths)])
"""


def _python_model(place: Path) -> Prediction:
    (model_folder(place) / "model.py").write_text(CODE)
    texts = np.array([["one"], ["three"]])
    return Prediction({"TEXT": texts}, {"LENGTH": np.array([[3], [5]], np.int32)})


KINDS = (
    Kind(
        title="Python model of Triton",
        files="`model.py` with a `TritonPythonModel`",
        backend="python",
        library="its own code",
        config="no, if it has `auto_complete_config`",
        make=_python_model,
    ),
)
