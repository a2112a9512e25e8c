"""Which backend a model gets, and what a wrong or missing one says."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format
from installed_backend import install_backend

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles
from trivet.backends.registry import (
    Choice,
    abouts,
    choose,
    choose_about,
    find_backend,
    open_backend,
)
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

    assert choose_about(config, make_files(tmp_path)).word == word


def test_backend_wins_over_platform_and_files(tmp_path: Path) -> None:
    config = make_config('backend: "identity" platform: "pytorch_libtorch"')

    assert choose_about(config, make_files(tmp_path, "model.onnx")).word == "identity"


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
    assert choose_about(make_config(), make_files(tmp_path, file_name)).word == word


def test_default_model_filename_counts_more_than_what_lies_there(tmp_path: Path) -> None:
    config = make_config('default_model_filename: "encoder.onnx"')

    assert (
        choose_about(config, make_files(tmp_path, "model.pt", "encoder.onnx")).word == "onnxruntime"
    )


def test_module_beside_weights_is_pytorch(tmp_path: Path) -> None:
    files = make_files(tmp_path, "model.py", "model.safetensors")

    assert choose_about(make_config(), files).word == "pytorch"


def test_python_model_with_weights_of_its_own_stays_python(tmp_path: Path) -> None:
    files = make_files(tmp_path, "model.py", "model.pt")
    (files.version_dir / "model.py").write_text("class TritonPythonModel: ...")

    assert choose_about(make_config(), files).word == "python"


@pytest.mark.parametrize("names", [("small.gguf",), ("config.json", "model.safetensors")])
def test_language_model_is_told_by_its_files(tmp_path: Path, names: tuple[str, ...]) -> None:
    files = make_files(tmp_path, *names)
    if "config.json" in names:
        architectures = '{"architectures": ["LlamaForCausalLM"]}'
        (files.version_dir / "config.json").write_text(architectures)

    assert choose_about(make_config(), files).word == "llm"


@pytest.mark.parametrize("other", ["model.onnx", "model.py"])
def test_what_lies_beside_a_model_file_tells_nothing(tmp_path: Path, other: str) -> None:
    files = make_files(tmp_path, "config.json", "weights.safetensors", "w.gguf", other)

    assert choose_about(make_config(), files).word in ("onnxruntime", "python")


def test_weights_that_are_no_language_model_are_nobodys(tmp_path: Path) -> None:
    files = make_files(tmp_path, "config.json", "model.safetensors")
    (files.version_dir / "config.json").write_text('{"architectures": ["BertModel"]}')

    with pytest.raises(InvalidConfig, match="'BertModel', which no backend here knows; export it"):
        choose_about(make_config(), files)


def test_a_default_model_filename_that_tells_nothing_leaves_it_to_the_files(tmp_path: Path) -> None:
    config = make_config('default_model_filename: "weights.bin"')

    assert choose_about(config, make_files(tmp_path, "weights.bin", "model.pt")).word == "pytorch"


@pytest.mark.parametrize(
    ("name", "word"),
    [("resnet50.onnx", "onnxruntime"), ("net.pt2", "pytorch"), ("tiny.Q4_0.gguf", "llm")],
)
def test_the_only_model_file_may_have_any_name(tmp_path: Path, name: str, word: str) -> None:
    files = make_files(tmp_path, name, "labels.txt")

    assert choose(make_config(), files) == Choice(abouts()[word], name)
    assert choose(make_config(f'backend: "{word}"'), files).model_file == name


def test_a_file_that_the_config_names_is_the_model(tmp_path: Path) -> None:
    config = make_config('backend: "onnxruntime" default_model_filename: "b.onnx"')

    assert choose(config, make_files(tmp_path, "a.onnx", "b.onnx")).model_file == ""


def test_of_an_export_by_optimum_the_model_is_taken_and_not_its_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    for stem in ("openvino_detokenizer", "openvino_model", "openvino_tokenizer"):
        (folder / f"{stem}.xml").write_text('<?xml version="1.0"?>\n<net name="m" version="11">')
        (folder / f"{stem}.bin").write_bytes(b"\0")
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')

    chosen = choose(ModelConfig(), ModelFiles(tmp_path / "m", 1))

    assert (chosen.about.word, chosen.model_file) == ("openvino", "openvino_model.xml")


def test_the_parts_of_a_split_file_are_one_model(tmp_path: Path) -> None:
    parts = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]

    assert choose(make_config(), make_files(tmp_path, *parts)).model_file == parts[0]


def test_files_of_two_backends_are_nobodys_and_both_are_named(tmp_path: Path) -> None:
    text = (
        r"could be of several backends: 'onnxruntime' \('a.onnx'\), 'pytorch' \('b.pt2'\); set "
        "`backend`"
    )

    with pytest.raises(InvalidConfig, match=text):
        choose(make_config(), make_files(tmp_path, "a.onnx", "b.pt2"))


def test_model_name_suffix_names_a_backend(tmp_path: Path) -> None:
    assert (
        choose_about(make_config(), make_files(tmp_path, model="echo.identity")).word == "identity"
    )


def test_ensemble_scheduling_makes_an_ensemble(tmp_path: Path) -> None:
    assert (
        choose_about(make_config("ensemble_scheduling {}"), make_files(tmp_path)).word == "ensemble"
    )


def test_found_backend_carries_what_it_says_of_itself(tmp_path: Path) -> None:
    found = find_backend(make_config('backend: "square"'), make_files(tmp_path))

    assert found.about.word == "square"
    assert found.backend is open_backend("square")


def test_unknown_backend_names_itself_and_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"unknown backend 'onnx'.*'identity'.*'onnxruntime'"):
        find_backend(make_config('backend: "onnx"'), make_files(tmp_path))


def test_a_misspelt_backend_or_platform_has_its_word(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"'onnxruntim' \(did you mean 'onnxruntime'\?\)"):
        find_backend(make_config('backend: "onnxruntim"'), make_files(tmp_path))
    with pytest.raises(InvalidConfig, match=r"\(did you mean 'tensorflow_savedmodel'\?\)"):
        find_backend(make_config('platform: "tensorflow_savedmodl"'), make_files(tmp_path))


@pytest.mark.parametrize("word", ["api", "../x", "testing.identity", "", "registry", "Identity"])
def test_a_word_reaches_no_module_but_a_backend(word: str) -> None:
    with pytest.raises(InvalidConfig, match="unknown backend"):
        open_backend(word)


def test_unknown_platform_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"unknown platform 'caffe2_netdef'.*backend"):
        find_backend(make_config('platform: "caffe2_netdef"'), make_files(tmp_path))


def test_model_without_any_hint_is_told_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"model 'm'.*set `backend`"):
        find_backend(make_config(), make_files(tmp_path, "readme.txt"))


def test_known_words_are_backends_only() -> None:
    words = abouts()

    assert {"identity", "repeat", "square", "onnxruntime", "pytorch"} <= words.keys()
    assert not {"api", "testing", "registry"} & words.keys()


@pytest.mark.parametrize(
    ("word", "package", "extra"),
    [
        ("keras", "keras", "tensorflow"),
        ("onnxruntime", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("pytorch", "torch", "torch"),
        ("tensorflow", "tensorflow", "tensorflow"),
        ("tflite", "ai_edge_litert", "tflite"),
    ],
)
def test_missing_framework_names_the_pip_extra(
    monkeypatch: pytest.MonkeyPatch, word: str, package: str, extra: str
) -> None:
    room = abouts()[word].backend.rpartition(".")[0]
    for name in [name for name in sys.modules if name.startswith(room)]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(LoadFailed, match=rf"'{package}'.*pip install trivet\[{extra}\]"):
        open_backend(word)


GADGET_ABOUT = """
from trivet.backends.api import About, Claim

def recognise(listing):
    return Claim.CONTENT if "gadget.bin" in listing.names else None

ABOUT = About(word="gadget", backend="gadget.backend:BACKEND", recognise=recognise,
              packages=("no_such_framework",), install="gadget[all]")
"""
GADGET_BACKEND = """
class Gadget:
    def complete(self, config, files):
        return config
    def open(self, config, files, placement):
        raise NotImplementedError
BACKEND = Gadget()
"""


@pytest.fixture
def gadget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a backend `gadget`, with this about.py and backend.py."""

    def install(
        about: str = GADGET_ABOUT, backend: str = GADGET_BACKEND, target: str = "gadget.about:ABOUT"
    ) -> None:
        files = {"gadget/about.py": about, "gadget/backend.py": backend}
        install_backend(tmp_path / "site", "gadget", target, files)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "gadget"]:
        del sys.modules[name]


def test_third_party_backend_is_found_by_word(gadget: Callable[..., None]) -> None:
    gadget()

    assert type(open_backend("gadget")).__name__ == "Gadget"
    assert "gadget" in abouts()


def test_third_party_backend_tells_a_folder_without_config(
    tmp_path: Path, gadget: Callable[..., None]
) -> None:
    gadget()

    found = find_backend(make_config(), make_files(tmp_path, "gadget.bin"))

    assert found.about.word == "gadget"


def test_looking_for_a_backend_imports_none(tmp_path: Path, gadget: Callable[..., None]) -> None:
    gadget()

    choose_about(make_config(), make_files(tmp_path, "gadget.bin"))

    assert "gadget.about" in sys.modules
    assert "gadget.backend" not in sys.modules


@pytest.mark.parametrize(
    ("missing", "fix"), [("no_such_framework", r"gadget\[all\]"), ("another_one", "another_one")]
)
def test_third_party_backend_without_its_framework_is_told(
    gadget: Callable[..., None], missing: str, fix: str
) -> None:
    gadget(backend=f"import {missing}")

    with pytest.raises(LoadFailed, match=rf"'gadget'.*'{missing}'.*pip install {fix}$"):
        open_backend("gadget")


def test_a_backend_that_is_not_where_it_should_be_is_told(gadget: Callable[..., None]) -> None:
    gadget(backend="")

    with pytest.raises(LoadFailed, match=r"'gadget' should be at gadget.backend:BACKEND, but"):
        open_backend("gadget")


@pytest.mark.parametrize(
    ("about", "target", "said"),
    [
        (GADGET_ABOUT, "gadget.backend:BACKEND", r"gives <gadget.*; it must give the .*About"),
        (GADGET_ABOUT.replace('"gadget"', '"other"'), "gadget.about:ABOUT", "gives one of 'other'"),
        ("import no_such_framework", "gadget.about:ABOUT", "cannot be imported from gadget.about"),
        (GADGET_ABOUT, "gadget.about:OTHER", "cannot be imported from gadget.about:OTHER"),
    ],
)
def test_an_entry_point_that_gives_no_about_is_told_and_hurts_no_others(
    tmp_path: Path,
    gadget: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    about: str,
    target: str,
    said: str,
) -> None:
    gadget(about=about, target=target)

    with pytest.raises(LoadFailed, match=said):
        open_backend("gadget")
    found = choose_about(make_config(), make_files(tmp_path, "model.onnx"))

    assert found.word == "onnxruntime"
    assert "gadget" in caplog.text


def test_finding_one_backend_imports_no_other_framework() -> None:
    code = (
        "import sys; from trivet.backends.registry import *; open_backend('identity'); "
        "abouts(); sys.exit(bool({'torch', 'onnxruntime'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
