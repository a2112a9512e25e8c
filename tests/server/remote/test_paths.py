"""Names of objects become names of files only where they can be: none leads out of the folder."""

import pytest

from trivet.server.remote.paths import checked
from trivet.server.remote.source import Stamp

FULL, EMPTY = Stamp(3, "a"), Stamp(0, "b")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", "is empty"),
        ("/etc/passwd", "is empty"),
        ("m//1/x", "is empty"),
        ("m/1/", "is empty"),
        ("m/../../x", "leads out of its folder"),
        ("../x", "leads out of its folder"),
        ("m/./x", "leads out of its folder"),
        ("m\\..\\x", "a backslash"),
        ("m/1/x\0y", "cannot be shown"),
        ("m/1/x\ny", "cannot be shown"),
        ("m/1/\ud800", "cannot be shown"),
        ("m/1/" + "x" * 256, "the limits are 2048 and 255"),
        ("m/" + "x/" * 1100 + "x", "the limits are 2048 and 255"),
    ],
)
@pytest.mark.rows("R35")
def test_a_name_that_can_be_no_file_is_refused_with_a_sentence(path: str, text: str) -> None:
    found = checked({path: FULL, "m/1/fine": FULL})
    assert list(found.files) == ["m/1/fine"]
    assert text in found.refused[path]
    assert "\0" not in found.refused[path]
    assert "\n" not in found.refused[path]


def test_a_name_may_be_a_file_or_a_folder() -> None:
    found = checked({"m/1": FULL, "m/1/x": FULL})
    assert list(found.files) == ["m/1/x"]
    assert "has the name of a folder" in found.refused["m/1"]


def test_marks_of_folders_are_no_files() -> None:
    found = checked({"m": EMPTY, "m/1": EMPTY, "m/1/x": FULL, "m/1/empty": EMPTY})
    assert sorted(found.files) == ["m/1/empty", "m/1/x"]
    assert not found.refused


def test_what_a_folder_s_scan_ignores_is_not_fetched() -> None:
    found = checked({".git/config": FULL, "m/1/x.tmp": FULL, "m/.hidden": FULL, "m/1/x": FULL})
    assert list(found.files) == ["m/1/x"]


def test_other_names_stay_as_they_are() -> None:
    names = ["m/1/a b.onnx", "m/1/größe.txt", "m/1/100%.txt", "m/1/a:b", "m/1/~x"]
    assert sorted(checked(dict.fromkeys(names, FULL)).files) == sorted(names)
