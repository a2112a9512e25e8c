"""Models in Python, as Triton's Python backend takes them."""

from pathlib import Path

import numpy as np
from acceptance.kind import Kind, Prediction, model_folder
from made_environments import add_package, make_venv, pack

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

ENVIRONMENT = """
parameters {
  key: "EXECUTION_ENV_PATH"
  value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" }
}
"""


def _python_model(place: Path) -> Prediction:
    (model_folder(place) / "model.py").write_text(CODE)
    texts = np.array([["one"], ["three"]])
    return Prediction({"TEXT": texts}, {"LENGTH": np.array([[3], [5]], np.int32)})


def _packed_model(place: Path) -> Prediction:
    folder = model_folder(place)
    (folder / "model.py").write_text(f"import only_there\n{CODE}")
    (folder.parent / "config.pbtxt").write_text(ENVIRONMENT)
    environment = make_venv(place.parent / f"{place.name}-environment")
    add_package(environment, "only_there", "")
    pack(environment, folder.parent / "env.tar.gz")
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
    Kind(
        title="The same with an environment ([more](tasks/python-environment.md))",
        files="`model.py`, and `env.tar.gz` of conda-pack, venv-pack or tar; or `requirements.txt`",
        backend="python",
        library="its own code, by the environment's interpreter",
        config="`EXECUTION_ENV_PATH`; or `--allow-install NAME`",
        make=_packed_model,
    ),
)
