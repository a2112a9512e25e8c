"""What a model's own code raises while it is loaded is no fault of the disk, unless one of the
model's own files is at fault."""

import textwrap
from pathlib import Path

import pytest

from trivet.backends.api import LoadFailed, ServingError, UnreadableFiles
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.loader import Loader
from trivet.server.models.registry import Registry
from trivet.server.repository.scan import scan

TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: [1] }
output { name: "y" data_type: TYPE_FP32 dims: [1] }
"""
WARMUP = """
model_warmup { name: "w" inputs { key: "x" value {
    data_type: TYPE_FP32 dims: [1] zero_data: true } } }
"""
ISOLATION = 'parameters { key: "isolation" value { string_value: "%s" } }\n'
PLACES = {
    "initialize": """
        import errno, os
        class TritonPythonModel:
            def initialize(self, args):
                folder = args["model_repository"]
                BODY
            def execute(self, requests):
                return []
        """,
    "import": """
        import errno, os
        folder = os.path.dirname(__file__)
        BODY
        """,
    "auto_complete_config": """
        import errno, os
        class TritonPythonModel:
            @staticmethod
            def auto_complete_config(config):
                folder = os.path.dirname(__file__)
                BODY
            def execute(self, requests):
                return []
        """,
}
EXECUTING = """
    import errno, os
    class TritonPythonModel:
        def execute(self, requests):
            BODY
    """
CLASS = """
    import errno, os, torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            folder = os.path.dirname(__file__)
            BODY
    """
MISTAKES = [
    'raise PermissionError(errno.EACCES, "Permission denied", "/run/secrets/token")',
    'raise ConnectionError(errno.ETIMEDOUT, "Connection timed out")',
    'raise RuntimeError("database: No space left on device")',
    'raise ValueError("swordfish") from OSError(errno.EMFILE, "Too many open files")',
]
FAULT = 'raise PermissionError(errno.EACCES, "Permission denied", folder + "/weights.bin")'


def failure_of(root: Path, source: str, body: str, config: str) -> ServingError:
    """What loading a model of this code raises."""
    (root / "m" / "1").mkdir(parents=True)
    text = textwrap.dedent(source).replace("BODY", body)
    (root / "m" / "1" / "model.py").write_text(text)
    (root / "m" / "config.pbtxt").write_text(config + TENSORS)
    loader = Loader(RegistryCatalog(Registry()))
    with pytest.raises(ServingError) as caught:
        loader.open(loader.plan(scan([root]).models["m"], None), 1)
    return caught.value


def python(isolation: str) -> str:
    return 'backend: "python"\n' + ISOLATION % isolation


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("body", MISTAKES, ids=["secret", "connection", "words", "cause"])
def test_a_mistake_of_a_python_model_waits_for_a_change_and_is_logged_with_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str, place: str, isolation: str
) -> None:
    error = failure_of(tmp_path, PLACES[place], body, python(isolation))
    assert isinstance(error, LoadFailed)
    assert not isinstance(error, UnreadableFiles)
    assert "Traceback" in caplog.text
    assert body in caplog.text


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize("place", PLACES)
def test_a_file_of_a_python_model_that_its_code_cannot_read_is_a_fault_of_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, isolation: str
) -> None:
    error = failure_of(tmp_path, PLACES[place], FAULT, python(isolation))
    assert isinstance(error, UnreadableFiles)
    assert "Permission denied" in error.message
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize("body", MISTAKES, ids=["secret", "connection", "words", "cause"])
def test_a_mistake_that_warming_up_shows_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str, isolation: str
) -> None:
    error = failure_of(tmp_path, EXECUTING, body, python(isolation) + WARMUP)
    assert not isinstance(error, UnreadableFiles)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("body", MISTAKES, ids=["secret", "connection", "words", "cause"])
def test_a_mistake_of_a_pytorch_class_waits_for_a_change_and_is_logged_with_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    error = failure_of(tmp_path, CLASS, body, 'backend: "pytorch"\nruntime: "model.py"\n')
    assert isinstance(error, LoadFailed)
    assert not isinstance(error, UnreadableFiles)
    assert body in caplog.text


def test_a_file_of_a_pytorch_class_that_it_cannot_read_is_a_fault_of_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error = failure_of(tmp_path, CLASS, FAULT, 'backend: "pytorch"\nruntime: "model.py"\n')
    assert isinstance(error, UnreadableFiles)
    assert "Permission denied" in error.message
    assert "Traceback" not in caplog.text
