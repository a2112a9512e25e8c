"""Models that clients send: their files lie where the server says, and nowhere else."""

from pathlib import Path

import pytest

from trivet.backends.api import LoadFailed
from trivet.server.repository.upload import Upload


def test_what_is_stored_is_all_that_the_model_is_made_of() -> None:
    upload = Upload.store("m", {"1/model.py": b"x = 1", "2/deep/er/data": b"ab"}, 100)
    folder = upload.folder
    assert (folder.name, folder.config, sorted(folder.versions)) == ("m", (), [1, 2])
    assert (folder.path / "1" / "model.py").read_bytes() == b"x = 1"
    assert (folder.path / "2" / "deep" / "er" / "data").read_bytes() == b"ab"
    upload.close()
    assert not upload.root.exists()


@pytest.mark.more_of("R26")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "1",
        "1/",
        "model.onnx",
        "config.pbtxt",
        "01/m",
        "0/m",
        "-1/m",
        "v1/m",
        "../1/m",
        "1/../m",
        "1/../../m",
        "1/./m",
        "1//m",
        "1//etc/passwd",
        "/1/m",
        "/etc/passwd",
        "1/..\\m",
        "1/a\\..\\..\\m",
        "1/a\0b",
        "1/a\nb",
        "1/" + "a/" * 600 + "m",
        "1/\udc80",
    ],
)
def test_a_path_that_is_not_within_a_version_is_refused(path: str) -> None:
    with pytest.raises(LoadFailed, match="failed to poll from model repository") as refusal:
        Upload.store("m", {"1/model.py": b"", path: b""}, 100)
    assert "names no file within a version folder" in refusal.value.message


@pytest.mark.more_of("R26")
def test_all_files_together_have_a_limit() -> None:
    Upload.store("m", {"1/a": b"12", "1/b": b"34"}, 4).close()
    with pytest.raises(LoadFailed, match=r"5 bytes; the limit is 4 .*--max-model-upload-size"):
        Upload.store("m", {"1/a": b"12", "1/b": b"345"}, 4)


@pytest.mark.parametrize("files", [{"1/a": b"", "1/a/b": b""}, {"1/" + "a" * 300: b""}])
def test_what_no_disk_can_hold_is_refused_and_leaves_nothing(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LoadFailed, match="cannot be stored"):
        Upload.store("m", files, 100)
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_repository_could_have_is_refused() -> None:
    with pytest.raises(LoadFailed, match="no name of a model"):
        Upload.store("a:b", {"1/m": b""}, 100)
