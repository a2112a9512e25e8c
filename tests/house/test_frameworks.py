"""Frameworks are loaded by the model that needs them, never by the server itself."""

import subprocess
import sys
from pathlib import Path

import pytest
from example_site import open_examples
from house_rules import ROOT
from serving import RunningServer

from trivet.backends.registry import abouts

# Frameworks, and what only tests and benches may need.
FOREIGN = {
    "ai_edge_litert",
    "catboost",
    "grpc",
    "keras",
    "lightgbm",
    "mlflow",
    "numba",
    "onnx",
    "onnxruntime",
    "openvino",
    "pandas",
    "ray",
    "scipy",
    "sklearn",
    "skops",
    "tensorflow",
    "tensorrt",
    "tokenizers",
    "torch",
    "transformers",
    "tritonclient",
    "xgboost",
}

IN_RAY = ROOT / "server/ray"
IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
TELL = "; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def modules(folder: str) -> list[str]:
    """The import names of all modules of a folder, but those that run in Ray's processes."""
    found = sorted((ROOT / folder).rglob("*.py"))
    paths = [path.relative_to(ROOT) for path in found if IN_RAY not in path.parents]
    return [".".join(("trivet", *path.with_suffix("").parts)) for path in paths]


def loaded_by(*names: str) -> set[str]:
    """Which packages a fresh interpreter has loaded after importing these modules."""
    told = subprocess.run(
        [sys.executable, "-c", IMPORT + TELL, *names], capture_output=True, text=True, check=True
    )
    return set(told.stdout.split())


@pytest.mark.parametrize("folder", ["server", "ensembles", "backends/api", "backends/process"])
def test_importing_loads_no_framework(folder: str) -> None:
    loaded = loaded_by(*modules(folder))

    assert "trivet" in loaded
    assert loaded & FOREIGN == set()


def test_what_backends_say_of_themselves_loads_no_framework() -> None:
    own = [name for name in modules("backends") + modules("ensembles") if name.endswith(".about")]
    needed = {package for about in abouts().values() for package in about.packages}

    loaded = loaded_by("trivet.backends.registry", *own)

    assert {"torch", "onnxruntime", "jinja2"} <= needed
    assert loaded & (FOREIGN | needed) == set()


@pytest.mark.parametrize("word", ["tensorflow", "keras"])
def test_a_backend_with_processes_of_its_own_loads_its_framework_there(word: str) -> None:
    module = abouts()[word].backend.partition(":")[0]

    assert abouts()[word].own_process
    assert loaded_by(module) & FOREIGN == set()


def test_a_language_model_loads_torch_in_its_engine_only() -> None:
    module = abouts()["llm"].backend.partition(":")[0]

    assert loaded_by(module) & FOREIGN == {"tokenizers"}


def test_an_engine_loads_no_framework_but_torch_before_it_knows_its_model() -> None:
    assert loaded_by("trivet.backends.llm.engine.assemble") & FOREIGN == {"torch", "tokenizers"}


def test_asking_for_help_is_instant() -> None:
    assert loaded_by("trivet.server.cli") & {*FOREIGN, "aiohttp", "numpy", "google"} == set()


def mapped_files(server: RunningServer) -> set[str]:
    """The shared libraries and other files that the server process has mapped."""
    lines = Path(f"/proc/{server.process.pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}


@pytest.mark.parametrize(
    ("model", "frameworks"),
    [("text_direction", {"onnxruntime"}), ("add_sub", set()), ("identity_fp32", set())],
)
def test_a_server_maps_the_libraries_of_what_it_serves(model: str, frameworks: set[str]) -> None:
    with open_examples("--model-control-mode=explicit", f"--load-model={model}") as server:
        files = mapped_files(server)

    assert any("/numpy/" in file for file in files), "the maps tell nothing"
    found = {name for name in ("onnxruntime", "torch") if any(f"/{name}/" in f for f in files)}
    assert found == frameworks
