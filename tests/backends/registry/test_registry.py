"""Which backend a model gets, and what a wrong or missing one says."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles
from trivet.backends.registry import choose_word, find_backend, known_words, open_backend
from trivet.protos.model_config_pb2 import ModelConfig


def make_files(tmp_path: Path, *names: str, model: str = "m") -> ModelFiles:
    version_dir = tmp_path / model / "1"
    version_dir.mkdir(parents=True, exist_ok=True)
    for name in names:
        (version_dir / name).write_text("")
    return ModelFiles(tmp_path / model, 1)


def make_config(text: str = "") -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


@pytest.mark.parametrize(
    ("platform", "word"),
    [
        ("onnxruntime_onnx", "onnxruntime"),
        ("pytorch_libtorch", "pytorch"),
        ("torch_aoti", "pytorch"),
        ("tensorrt_plan", "tensorrt"),
        ("ensemble", "ensemble"),
        ("python", "python"),
    ],
)
def test_legacy_platform_names_a_backend(tmp_path: Path, platform: str, word: str) -> None:
    config = make_config(f'platform: "{platform}"')

    assert choose_word(config, make_files(tmp_path)) == word


def test_backend_wins_over_platform_and_files(tmp_path: Path) -> None:
    config = make_config('backend: "identity" platform: "pytorch_libtorch"')

    assert choose_word(config, make_files(tmp_path, "model.onnx")) == "identity"


@pytest.mark.parametrize(
    ("file_name", "word"),
    [
        ("model.onnx", "onnxruntime"),
        ("model.pt", "pytorch"),
        ("model.pt2", "pytorch"),
        ("model.plan", "tensorrt"),
        ("model.py", "python"),
        ("model.identity", "identity"),
    ],
)
def test_model_file_names_a_backend(tmp_path: Path, file_name: str, word: str) -> None:
    assert choose_word(make_config(), make_files(tmp_path, file_name)) == word


def test_default_model_filename_counts_more_than_what_lies_there(tmp_path: Path) -> None:
    config = make_config('default_model_filename: "encoder.onnx"')

    assert choose_word(config, make_files(tmp_path, "model.pt", "encoder.onnx")) == "onnxruntime"


def test_module_beside_weights_is_pytorch(tmp_path: Path) -> None:
    files = make_files(tmp_path, "model.py", "model.safetensors")

    assert choose_word(make_config(), files) == "pytorch"


def test_python_model_with_weights_of_its_own_stays_python(tmp_path: Path) -> None:
    files = make_files(tmp_path, "model.py", "model.pt")
    (files.version_dir / "model.py").write_text("class TritonPythonModel: ...")

    assert choose_word(make_config(), files) == "python"


def test_model_name_suffix_names_a_backend(tmp_path: Path) -> None:
    assert choose_word(make_config(), make_files(tmp_path, model="echo.identity")) == "identity"


def test_ensemble_scheduling_makes_an_ensemble(tmp_path: Path) -> None:
    assert choose_word(make_config("ensemble_scheduling {}"), make_files(tmp_path)) == "ensemble"


def test_found_backend_carries_its_word(tmp_path: Path) -> None:
    found = find_backend(make_config('backend: "square"'), make_files(tmp_path))

    assert found.word == "square"
    assert found.backend is open_backend("square")


def test_unknown_backend_names_itself_and_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"unknown backend 'onnx'.*'identity'.*'onnxruntime'"):
        find_backend(make_config('backend: "onnx"'), make_files(tmp_path))


@pytest.mark.parametrize("word", ["api", "../x", "testing.identity", "", "registry", "Identity"])
def test_a_word_reaches_no_module_but_a_backend(word: str) -> None:
    with pytest.raises(InvalidConfig, match="unknown backend"):
        open_backend(word)


def test_unknown_platform_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"unknown platform 'tensorflow_savedmodel'.*backend"):
        find_backend(make_config('platform: "tensorflow_savedmodel"'), make_files(tmp_path))


def test_model_without_any_hint_is_told_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"model 'm'.*set `backend`"):
        find_backend(make_config(), make_files(tmp_path, "readme.txt"))


def test_known_words_are_backends_only() -> None:
    words = known_words()

    assert {"identity", "repeat", "square", "onnxruntime", "pytorch"} <= set(words)
    assert not {"api", "testing", "registry"} & set(words)


@pytest.mark.parametrize(
    ("word", "package", "extra"),
    [("onnxruntime", "onnxruntime", "onnx"), ("pytorch", "torch", "torch")],
)
def test_missing_framework_names_the_pip_extra(
    monkeypatch: pytest.MonkeyPatch, word: str, package: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"trivet.backends.{word}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(LoadFailed, match=rf"'{package}'.*pip install trivet\[{extra}\]"):
        open_backend(word)


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, target: str) -> None:
    """Puts a package with an entry point `gadget` on the path, as pip would."""
    (tmp_path / "gadget_backend.py").write_text(code)
    info = tmp_path / "gadget-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gadget\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[trivet.backends]\ngadget = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "gadget_backend", raising=False)


GADGET = """
class Gadget:
    def matches(self, files):
        return (files.version_dir / "model.bin").exists()
    def complete(self, config, files):
        return config
    def open(self, config, files, placement):
        raise NotImplementedError
INSTANCE = Gadget()
"""


@pytest.mark.parametrize("target", ["gadget_backend:INSTANCE", "gadget_backend:Gadget"])
def test_third_party_backend_is_found_by_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    install(tmp_path, monkeypatch, GADGET, target)

    backend = open_backend("gadget")

    assert type(backend).__name__ == "Gadget"
    assert "gadget" in known_words()


def test_third_party_backend_is_asked_about_a_folder_without_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, GADGET, "gadget_backend:INSTANCE")

    assert find_backend(make_config(), make_files(tmp_path, "model.bin")).word == "gadget"


def test_third_party_backend_without_its_framework_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "import no_such_framework", "gadget_backend:INSTANCE")

    with pytest.raises(LoadFailed, match=r"'gadget'.*pip install no_such_framework"):
        open_backend("gadget")


def test_finding_one_backend_imports_no_other_framework() -> None:
    code = (
        "import sys; from trivet.backends.registry import *; open_backend('identity'); "
        "known_words(); sys.exit(bool({'torch', 'onnxruntime'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
