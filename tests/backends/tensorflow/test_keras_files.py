"""What is said of a .keras file before any process is started for it."""

import json
import zipfile
from pathlib import Path

import pytest
from keras_files import keras_file

from trivet.backends.api import LoadFailed
from trivet.backends.tensorflow.keras_file import check_keras_file


def put(folder: Path, content: bytes) -> Path:
    path = folder / "model.keras"
    path.write_bytes(content)
    return path


def with_layer(folder: Path, layer: object) -> Path:
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
    return path


def test_a_file_of_kerass_own_layers_passes(tmp_path: Path) -> None:
    check_keras_file("m", put(tmp_path, keras_file()))


@pytest.mark.more_of("R28")
def test_a_file_cut_off_anywhere_is_told(tmp_path: Path) -> None:
    whole = keras_file()
    for length in range(0, len(whole) - 1, 150):
        with pytest.raises(LoadFailed, match=r"'model\.keras' is no whole \.keras file"):
            check_keras_file("m", put(tmp_path, whole[:length]))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"function": {"class_name": "__lambda__", "config": {}}}, "Lambda layer.*never run here"),
        (
            {"module": "model_code", "class_name": "Own", "registered_name": "author>Own"},
            r"author's own.*'Own'.*model\.export",
        ),
        ({"module": None, "class_name": "L", "registered_name": "L"}, r"author's own.*'L'"),
    ],
)
def test_a_file_that_asks_for_code_is_refused(tmp_path: Path, layer: object, said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        check_keras_file("m", with_layer(tmp_path, layer))


def test_a_module_beside_the_model_is_not_imported(tmp_path: Path) -> None:
    """Keras may import the modules that a file names, and the model's folder is on the path."""
    layer = {"module": "os", "class_name": "system", "registered_name": "system"}

    with pytest.raises(LoadFailed, match="author's own"):
        check_keras_file("m", with_layer(tmp_path, layer))
