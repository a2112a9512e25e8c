"""What each built-in backend says of itself is what it does."""

import inspect
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import encoder_folders
import image_folders
import numpy as np
import onnx_models
import pytest
import skops.io
import torch
import torch_models
import tree_models
from device_twin import TwinDevice
from fake_tensorrt import FakeTensorRt, plan, write_plan
from google.protobuf import text_format
from house_rules import ROOT
from keras_files import keras_file
from openvino_models import save_ir
from saved_model_files import FLOAT, saved_model
from sklearn.linear_model import LogisticRegression
from tflite_models import tflite_model

from trivet.backends.api import About, Backend, ModelFiles, Signature, StartsProcesses
from trivet.backends.api.about import BACKEND_FIELDS
from trivet.backends.api.engine_build import BuildsEngines
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.registry import abouts, open_backend
from trivet.backends.tensorrt.backend import TensorRtBackend
from trivet.backends.testing.wishes import Wishes
from trivet.ensembles.backend import EnsembleBackend
from trivet.protos.model_config_pb2 import ModelConfig

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
WORDS = sorted(abouts())
TENSORS = """
input { name: "IN" data_type: TYPE_FP32 dims: [1] }
output { name: "OUT" data_type: TYPE_FP32 dims: [1] }
"""
DESCRIBES_ITSELF = """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        config.set_model_transaction_policy({"decoupled": True})
        return config
    def execute(self, requests):
        return []
"""
Site = Callable[[Path], tuple[Backend, str]]
"""Writes a model that says all it can; returns its backend and what its config must have."""


def python(root: Path) -> tuple[Backend, str]:
    put(root, "model.py", DESCRIBES_ITSELF)
    return open_backend("python"), 'parameters { key: "isolation" value { string_value: "none" } }'


def onnxruntime(root: Path) -> tuple[Backend, str]:
    onnx_models.Home(root / "m").put(onnx_models.zip_map_model(np.ones((4, 2), np.float32)))
    return open_backend("onnxruntime"), ""


def pytorch(root: Path) -> tuple[Backend, str]:
    torch_models.Home(root / "m").put_exported(torch.nn.ReLU(), torch.ones(2, 4))
    return open_backend("pytorch"), ""


def tensorrt(root: Path) -> tuple[Backend, str]:
    device = TwinDevice(total_bytes=1 << 24)
    fake = FakeTensorRt(device)
    write_plan(root, plan(profiles=[{"x": ((1, 4), (2, 4), (4, 4))}]))
    (root / "engine").rename(root / "m")
    return TensorRtBackend(lambda: fake.library, lambda _: device), ""


def tensorflow(root: Path) -> tuple[Backend, str]:
    content = saved_model({"serving_default": ({"x": (FLOAT, [-1])}, {"y": (FLOAT, [-1])})})
    put(root, "saved_model.pb", content)
    return open_backend("tensorflow"), ""


def keras(root: Path) -> tuple[Backend, str]:
    put(root, "model.keras", keras_file())
    return open_backend("keras"), ""


def tflite(root: Path) -> tuple[Backend, str]:
    put(root, "model.tflite", tflite_model())
    return open_backend("tflite"), ""


def openvino(root: Path) -> tuple[Backend, str]:
    (root / "m" / "1").mkdir(parents=True)
    save_ir(root / "m" / "1" / "model.xml")
    return open_backend("openvino"), ""


def llm(root: Path) -> tuple[Backend, str]:
    put(root, "small.gguf", "")
    return open_backend("llm"), ""


def mlflow(root: Path) -> tuple[Backend, str]:
    put(root, "MLmodel", "flavors: {onnx: {data: model.onnx}}")
    onnx_models.Home(root / "m").put(onnx_models.identity_model())
    return open_backend("mlflow"), ""


def encoder(root: Path) -> tuple[Backend, str]:
    encoder_folders.make_encoder(root / "m/1")
    return open_backend("encoder"), ""


def image_classifier(root: Path) -> tuple[Backend, str]:
    image_folders.make_classifier(root / "m/1")
    return open_backend("image_classifier"), ""


def ensemble(root: Path) -> tuple[Backend, str]:
    step = Signature.from_config(text_format.Parse(STEP, ModelConfig(name="step")))
    catalog: Any = SimpleNamespace(
        find=lambda name, namespace="": name,
        signature=lambda name, version: step,
        labels=lambda name, version: {},
        parts=lambda name: frozenset({name}),
    )
    return EnsembleBackend(catalog), ENSEMBLE


STEP = f"max_batch_size: 4 model_transaction_policy {{ decoupled: true }} {TENSORS}"
ENSEMBLE = """
ensemble_scheduling { step { model_name: "step"
  input_map { key: "IN" value: "a" } output_map { key: "OUT" value: "b" } } }
"""


def configured(word: str) -> Site:
    decoupled = "" if word == "identity" else "model_transaction_policy { decoupled: true }"
    return lambda root: (open_backend(word), f"{TENSORS} {decoupled}")


def fil(root: Path) -> tuple[Backend, str]:
    tree_models.Home(root / "m").put("model.cbm", "three")
    return open_backend("fil"), ""


def sklearn(root: Path) -> tuple[Backend, str]:
    model = LogisticRegression().fit([[0.0], [1.0]], ["a", "b"])
    skops.io.dump(model, tree_models.Home(root / "m").path("model.skops"))
    return open_backend("sklearn"), 'parameters { key: "isolation" value { string_value: "none" } }'


def prompt_template(root: Path) -> tuple[Backend, str]:
    put(root, "prompt.toml", 'base = "large"\nsystem = "Be short."\n')
    return open_backend("prompt_template"), ""


SITES: dict[str, Site] = {
    "encoder": encoder,
    "ensemble": ensemble,
    "fil": fil,
    "image_classifier": image_classifier,
    "keras": keras,
    "llm": llm,
    "mlflow": mlflow,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "prompt_template": prompt_template,
    "python": python,
    "pytorch": pytorch,
    "sklearn": sklearn,
    "tensorflow": tensorflow,
    "tensorrt": tensorrt,
    "tflite": tflite,
    **{word: configured(word) for word in ("identity", "repeat", "square")},
}


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / "m" / "1" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_every_backend_is_looked_at() -> None:
    assert sorted(SITES) == WORDS


IN_A_PROCESS = {"keras"}
"""Those that complete a config by starting a process, for seconds."""


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(word, marks=[pytest.mark.slow] if word in IN_A_PROCESS else [])
        for word in WORDS
    ],
)
def test_it_completes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    backend, text = SITES[word](tmp_path)
    given = text_format.Parse(text, ModelConfig(name="m"))
    about = abouts()[word]
    if about.only_reads:
        monkeypatch.setattr(subprocess, "Popen", None)

    completed = backend.complete(given, ModelFiles(tmp_path / "m", 1))

    assert fields(completed) - fields(given) == about.completes - fields(given)


def fields(config: ModelConfig) -> set[str]:
    return {field.name for field, _ in config.ListFields()}


@pytest.mark.parametrize("about", abouts().values(), ids=WORDS)
def test_its_word_is_its_backends(about: About) -> None:
    module, _, name = about.backend.partition(":")

    assert abouts()[about.word] is about
    assert find_spec(module) is not None
    assert name == "BACKEND"
    assert set(about.fields or ()) <= set(BACKEND_FIELDS)


@pytest.mark.parametrize("about", abouts().values(), ids=WORDS)
def test_what_it_says_of_processes_and_engines_is_so(about: About) -> None:
    backend = open_backend(about.word)
    config = ModelConfig(name="m")
    is_apart = isinstance(backend, StartsProcesses) and backend.starts_processes(config)

    assert isinstance(backend, BuildsEngines) == about.builds_engines
    assert is_apart or not about.runs_user_code
    assert about.usual_isolation == (
        "process" if about.runs_user_code or about.own_process else "none"
    )


@pytest.mark.parametrize("about", abouts().values(), ids=WORDS)
def test_what_pip_should_install_is_an_extra_with_its_packages(about: About) -> None:
    if not about.packages:
        return
    extra = about.install.removeprefix("trivet[").removesuffix("]")

    assert installed_by(extra) >= set(about.packages)


IMPORTED_AS = {"pillow": "PIL"}


def installed_by(extra: str) -> set[str]:
    """The packages of an extra and of those that it names."""
    found: set[str] = set()
    for requirement in EXTRAS[extra]:
        if requirement.startswith("trivet["):
            for inner in requirement.removeprefix("trivet[").rstrip("]").split(","):
                found |= installed_by(inner)
        else:
            # On the package index with dashes; what is imported has underscores.
            name = requirement.partition(">")[0].replace("-", "_")
            found.add(IMPORTED_AS.get(name, name.removesuffix("_cpu")))
    return found


class Recording(dict[str, Any]):
    """Parameters that remember which were asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return False

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return SimpleNamespace(string_value="")


def asked_by(read: Callable[[Any], object]) -> set[str]:
    parameters = Recording()
    read(SimpleNamespace(name="m", parameters=parameters))
    return parameters.asked


def test_pytorch_reads_the_parameters_that_it_says() -> None:
    assert asked_by(PyTorchParameters.read) == set(abouts()["pytorch"].parameters or ())


def test_identity_reads_the_parameters_that_it_says() -> None:
    placement: Any = SimpleNamespace(name="m_0")

    asked = asked_by(lambda config: Wishes.read(config, placement))

    assert asked == set(abouts()["identity"].parameters or ())


def test_language_models_read_the_parameters_that_they_say() -> None:
    own = asdict(EngineSettings("")).keys() - {"device_uuid"}

    assert own == set(abouts()["llm"].parameters or ())


@pytest.mark.parametrize(
    "word",
    ["onnxruntime", "openvino", "tensorrt", "tensorflow", "keras", "tflite", "ensemble", "fil"],
)
def test_parameters_that_it_says_stand_in_its_sources(word: str) -> None:
    about = abouts()[word]
    room = Path(inspect.getfile(type(open_backend(word)))).parent
    text = "".join(path.read_text() for path in room.glob("*.py"))

    for name in about.parameters or ():
        assert f'"{name.rstrip("*")}' in text, name
