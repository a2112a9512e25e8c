"""S6: model files are data. Pickles and code that files bring along never run, optimised or not.

Pickles under every name are rows R09; GGUF and safetensors R10 and R11; ONNX R12; the archives of
PyTorch in `tests/backends/pytorch/test_pytorch_files.py`.
"""

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from house_rules import sources

from trivet.backends.api import LoadFailed, ModelFiles
from trivet.backends.pytorch.backend import BACKEND
from trivet.server.models.allowed import Allowed
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.loader import Loader
from trivet.server.models.registry import Registry
from trivet.server.repository.config import parse_config
from trivet.server.repository.upload import Upload

TENSORS = (
    'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
    'output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
)


def payload(canary: Path) -> bytes:
    """A pickle that makes a folder when someone loads it."""
    return b"cposix\nmkdir\n(V%b\ntR." % str(canary).encode()


def torch_archive(canary: Path) -> bytes:
    """As torch.save writes one, with the payload as its objects."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", payload(canary))
        archive.writestr("archive/version", "3\n")
    return made.getvalue()


def object_array(canary: Path) -> bytes:
    """A .npy file of Python objects."""
    head = np.lib.format.magic(1, 0)
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return head + len(text).to_bytes(2, "little") + text + payload(canary)


@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
@pytest.mark.parametrize("content", [payload, torch_archive, object_array])
def test_no_pickle_in_any_wrapping_runs(tmp_path: Path, name: str, content: object) -> None:
    canary = tmp_path / "canary"
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content(canary))  # type: ignore[operator]
    config = parse_config('backend: "pytorch"\n' + TENSORS, "m")
    with pytest.raises(LoadFailed):
        BACKEND.complete(config, ModelFiles(tmp_path / "m", 1))
    assert not canary.exists()


def test_the_payload_is_one(tmp_path: Path) -> None:
    """Else the tests above show nothing."""
    path = tmp_path / "model.pt"
    path.write_bytes(torch_archive(tmp_path / "canary"))
    entry = f"zipfile.ZipFile({str(path)!r}).read('archive/data.pkl')"
    code = f"import pickle, zipfile; pickle.loads({entry})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "canary").exists()


def test_python_without_asserts_refuses_the_same(tmp_path: Path) -> None:
    """Nothing that guards is an assert."""
    canary = tmp_path / "canary"
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(torch_archive(canary))
    (tmp_path / "secret").write_text("swordfish")
    code = f"""
from pathlib import Path
from trivet.backends.api import LoadFailed, ModelFiles
from trivet.backends.llm.weights.gguf_header import BrokenHeader, read_header
assert False, "asserts are on"
files = ModelFiles(Path({str(tmp_path / "m")!r}), 1)
refused = 0
for step in (
    lambda: files.inside(files.version_dir, "../../secret"),
    lambda: read_header(files.version_dir / "model.pt"),
):
    try:
        step()
    except (LoadFailed, BrokenHeader):
        refused += 1
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"
    assert not canary.exists()


def test_no_assert_checks_what_comes_from_outside() -> None:
    """In the rooms that read input, an assert states what the code before it has made true: it
    tests for None, types or states of our own, and calls nothing that judges data."""
    judges = {"is_relative_to", "startswith", "endswith", "match", "fullmatch", "compare_digest"}
    found = [
        (source.name, node.lineno)
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assert)
        for call in ast.walk(node.test)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in judges
    ]
    assert found == []


def test_a_sent_model_is_not_the_one_that_the_operator_allowed(tmp_path: Path) -> None:
    """Nor does a config's word allow anything."""
    canary = tmp_path / "canary"
    upload = Upload.store("m", {"1/model.pkl": payload(canary)}, 10_000)
    loader = Loader(RegistryCatalog(Registry()), allowed=Allowed(frozenset({"m"})))
    config = (
        '{"backend": "sklearn", "parameters": {"allow_pickle": {"string_value": "true"}, '
        '"isolation": {"string_value": "none"}}}'
    )

    try:
        with pytest.raises(LoadFailed, match="is a pickle"):
            loader.open(loader.plan(upload.folder, config), 1)
    finally:
        upload.close()

    assert not canary.exists()


def test_a_sent_model_installs_nothing_whatever_its_name(tmp_path: Path) -> None:
    """Nor does it name an environment that lies elsewhere."""
    files = {"1/model.py": b"", "1/requirements.txt": b"no-such-package"}
    upload = Upload.store("m", files, 10_000)
    loader = Loader(RegistryCatalog(Registry()), allowed=Allowed(installs=frozenset({"m"})))
    elsewhere = f'{{"parameters": {{"EXECUTION_ENV_PATH": {{"string_value": "{tmp_path}"}}}}}}'

    try:
        for config, text in (
            (None, "client sends nothing is installed"),
            (elsewhere, "leads out of the model"),
        ):
            with pytest.raises(LoadFailed, match=text):
                loader.open(loader.plan(upload.folder, config), 1)
    finally:
        upload.close()
