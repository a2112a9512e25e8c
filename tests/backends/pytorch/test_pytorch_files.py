"""PyTorch files that would run code, or are no models: refused, and nothing in them runs."""

import inspect
import io
import os
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch_models import AddSub, Home, run_one

from trivet.backends.api import LoadFailed, ModelFiles, Pickles, Placement
from trivet.backends.pytorch.backend import BACKEND
from trivet.protos.model_config_pb2 import ModelConfig

TEXT = """name: "m" backend: "pytorch"
input { name: "x" data_type: TYPE_FP32 dims: [4] }
output { name: "y" data_type: TYPE_FP32 dims: [4] }"""


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


class Same(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Writer(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "canary")
        return x


def open_model(files: ModelFiles) -> None:
    config = text_format.Parse(TEXT, ModelConfig())
    BACKEND.open(config, files, Placement("m_0_0", "KIND_CPU", 0, 1))


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    (tmp_path / "m" / "1").mkdir(parents=True)
    return ModelFiles(tmp_path / "m", 1)


def export(path: Path) -> None:
    torch.export.save(torch.export.export(Same(), (torch.ones(2, 4),)), path)


def replace_member(path: Path, ending: str, content: bytes) -> None:
    """Rewrites an archive with another content of the member of that ending."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in members.items():
            archive.writestr(name, content if name.endswith(ending) else old)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("has_class", [True, False])
def test_pickle_is_refused_and_does_not_run(
    files: ModelFiles, tmp_path: Path, is_zip: bool, has_class: bool
) -> None:
    canary = tmp_path / "canary"
    torch.save(
        {"weight": Bomb(canary)},
        files.version_dir / "model.pt",
        _use_new_zipfile_serialization=is_zip,
    )
    if has_class:
        source = "import torch\nclass Net(torch.nn.Module): ...\n"
        (files.version_dir / "model.py").write_text(source)

    with pytest.raises(LoadFailed, match=r"(because they|pickles) run code"):
        open_model(files)

    assert not canary.exists()


def test_pickle_among_the_example_inputs_does_not_run(files: ModelFiles, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = files.version_dir / "model.pt2"
    export(path)
    content = io.BytesIO()
    torch.save(Bomb(canary), content)
    replace_member(path, "sample_inputs/model.pt", content.getvalue())

    with pytest.raises(LoadFailed, match=r"sample_inputs.*because they run code"):
        open_model(files)

    assert not canary.exists()


def test_pickle_among_the_weights_does_not_run(files: ModelFiles) -> None:
    path = files.version_dir / "model.pt2"
    export(path)
    table = b'{"config": {"w": {"path_name": "weight_0", "use_pickle": true}}}'
    replace_member(path, "model_weights_config.json", table)

    with pytest.raises(LoadFailed, match=r"\['w'\] as pickled Python objects"):
        open_model(files)


def test_script_that_writes_files_is_refused(files: ModelFiles) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Writer()), files.version_dir / "model.pt")

    with pytest.raises(LoadFailed, match=r"reads or writes files.*aten::save"):
        open_model(files)


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html>404</html>", "an HTML or XML page"),
        (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
def test_file_that_is_no_archive_is_named_for_what_it_looks_like(
    files: ModelFiles, name: str, content: bytes, looks_like: str
) -> None:
    (files.version_dir / name).write_bytes(content)

    with pytest.raises(LoadFailed, match=f"'{name}' is no PyTorch archive.*{looks_like}"):
        open_model(files)


def test_zip_of_something_else_is_refused(files: ModelFiles) -> None:
    with zipfile.ZipFile(files.version_dir / "model.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")

    with pytest.raises(LoadFailed, match="without a PyTorch model"):
        open_model(files)


@pytest.mark.parametrize("ending", ["models/model.json", "weights_config.json"])
def test_damaged_export_is_refused(files: ModelFiles, ending: str) -> None:
    path = files.version_dir / "model.pt2"
    export(path)
    replace_member(path, ending, b"{}")

    with pytest.raises(LoadFailed, match=r"'model\.pt2'"):
        open_model(files)


def test_damaged_script_is_refused(files: ModelFiles) -> None:
    path = files.version_dir / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Same()), path)
    replace_member(path, "data.pkl", b"garbage")

    with pytest.raises(LoadFailed, match=r"'model\.pt' could not be loaded"):
        open_model(files)


def test_garbage_safetensors_are_refused(files: ModelFiles) -> None:
    (files.version_dir / "model.safetensors").write_bytes(b"\xff" * 64)
    (files.version_dir / "model.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x): return x\n"
    )

    with pytest.raises(LoadFailed, match="no safetensors file"):
        open_model(files)


def test_exported_programs_that_load_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    homes = [Home(tmp_path / str(number)) for number in range(4)]
    for home in homes:
        home.put_exported(AddSub(), torch.ones(2, 4), torch.ones(2, 4))
    with ThreadPoolExecutor(4) as threads:
        for config in threads.map(lambda home: home.complete(), homes):
            assert [tensor.name for tensor in config.input] == ["a", "b"]


class PickledNet(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 3


def test_an_allowed_pickled_module_runs_apart(files: ModelFiles) -> None:
    """Its class lies in a module beside it."""
    allowed = replace(files, pickles=Pickles.APART)
    source = inspect.getsource(PickledNet)
    (files.version_dir / "nets.py").write_text(f"import torch\n{source}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "nets", sys.modules[__name__])
        patch.setattr(PickledNet, "__module__", "nets")
        torch.save(PickledNet(), files.version_dir / "model.pt")
    config = text_format.Parse(TEXT, ModelConfig())

    instance = BACKEND.open(config, allowed, Placement("m_0", "KIND_CPU", 0, 1))
    answer = run_one(instance, x=np.ones(4, np.float32))
    instance.close()

    np.testing.assert_array_equal(answer["y"], np.full(4, 3, np.float32))


def test_an_allowed_pickle_of_weights_is_still_no_program(files: ModelFiles) -> None:
    torch.save(PickledNet().state_dict(), files.version_dir / "model.pt")
    here = replace(files, pickles=Pickles.HERE)
    config = text_format.Parse(TEXT, ModelConfig())

    with pytest.raises(LoadFailed, match="holds a OrderedDict, no module: save the program"):
        BACKEND.open(config, here, Placement("m_0", "KIND_CPU", 0, 1))
