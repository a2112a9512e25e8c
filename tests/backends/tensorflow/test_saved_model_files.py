"""What is read from a SavedModel without TensorFlow: signatures, tensors, and what is wrong."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from saved_model_files import COMPLEX64, FLOAT, INT32, STRING, Tensors, saved_model

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles
from trivet.backends.registry import choose_about, open_backend
from trivet.protos.model_config_pb2 import TYPE_FP32, TYPE_INT32, TYPE_STRING, ModelConfig

IN: Tensors = {"x": (FLOAT, [-1, 4])}
OUT: Tensors = {"y": (FLOAT, [-1, 2])}
ONE = {"serving_default": (IN, OUT)}


def put(root: Path, content: bytes, folder: str = "model.savedmodel") -> ModelFiles:
    place = root / "m" / "1" / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "saved_model.pb").write_bytes(content)
    return ModelFiles(root / "m", 1)


def complete(files: ModelFiles, text: str = "") -> ModelConfig:
    given = text_format.Parse(text, ModelConfig(name="m"))
    return open_backend("tensorflow").complete(given, files)


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'


@pytest.mark.parametrize("folder", ["model.savedmodel", "."])
def test_config_comes_from_the_signature(tmp_path: Path, folder: str) -> None:
    inputs: Tensors = {"w": (INT32, [-1, -1, 3]), "text": (STRING, [-1])}
    outputs: Tensors = {"y": (FLOAT, [-1, 2])}
    files = put(tmp_path, saved_model({"serving_default": (inputs, outputs)}), folder)

    config = complete(files)

    assert choose_about(ModelConfig(name="m"), files).word == "tensorflow"
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("text", TYPE_STRING, [1]),
        ("w", TYPE_INT32, [-1, 3]),
    ]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("y", TYPE_FP32, [2])]
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")


def test_a_fixed_first_dimension_is_no_batch(tmp_path: Path) -> None:
    signature: tuple[Tensors, Tensors] = ({"x": (FLOAT, [3, 4])}, {"y": (FLOAT, [])})

    config = complete(put(tmp_path, saved_model({"serving_default": signature})))

    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [3, 4]
    assert list(config.output[0].dims) == [1]


def test_triton_platform_is_taken(tmp_path: Path) -> None:
    files = put(tmp_path, saved_model(ONE))

    assert choose_about(ModelConfig(platform="tensorflow_savedmodel"), files).word == "tensorflow"


def test_config_names_the_folder(tmp_path: Path) -> None:
    files = put(tmp_path, saved_model(ONE), "other")

    assert complete(files, 'default_model_filename: "other"').input[0].name == "x"


def test_the_only_signature_is_taken_whatever_its_name(tmp_path: Path) -> None:
    signatures: dict[str, tuple[Tensors, Tensors]] = {
        "predict": (IN, OUT),
        "__saved_model_init_op": ({}, {"__saved_model_init_op": (INT32, None)}),
    }

    assert complete(put(tmp_path, saved_model(signatures))).input[0].name == "x"


def test_signature_and_graph_are_chosen_by_parameters(tmp_path: Path) -> None:
    other: Tensors = {"other": (FLOAT, [-1, 4])}
    third: Tensors = {"third": (FLOAT, [-1, 4])}
    two = saved_model({**ONE, "score": (other, OUT)}) + saved_model(
        {"serving_default": (third, OUT)}, tags=["serve", "gpu"]
    )
    files = put(tmp_path, two)

    assert complete(files).input[0].name == "x"
    assert complete(files, parameter("TF_SIGNATURE_DEF", "score")).input[0].name == "other"
    assert complete(files, parameter("TF_GRAPH_TAG", "gpu")).input[0].name == "third"


@pytest.mark.parametrize(
    ("signatures", "text", "said"),
    [
        ({}, "", r"has no signature, so .*signatures=.*model\.export"),
        ({"a": (IN, OUT), "b": (IN, OUT)}, "", r"no signature 'serving_default', but \['a', 'b'\]"),
        (ONE, parameter("TF_SIGNATURE_DEF", "c"), r"no signature 'c', but.*TF_SIGNATURE_DEF"),
        (ONE, parameter("TF_GRAPH_TAG", "tpu"), r"no graph .*'tpu'.*TF_GRAPH_TAG.*\['serve'\]"),
        (
            {"serving_default": (IN, {"y": (COMPLEX64, [-1])})},
            "",
            r"tensors \['y'\], of types that cannot be sent",
        ),
    ],
)
def test_what_a_signature_lacks_is_told_with_the_remedy(
    tmp_path: Path, signatures: dict[str, tuple[Tensors, Tensors]], text: str, said: str
) -> None:
    files = put(tmp_path, saved_model(signatures))

    with pytest.raises(InvalidConfig, match=said):
        complete(files, text)


def test_a_file_cut_off_anywhere_is_no_saved_model(tmp_path: Path) -> None:
    whole = saved_model(ONE)
    files = put(tmp_path, whole)
    for length in range(0, len(whole) - 1, 7):
        put(tmp_path, whole[:length])
        with pytest.raises(LoadFailed, match=r"'saved_model\.pb' is not a whole SavedModel"):
            complete(files)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["model.onnx"], r"no SavedModel .*it holds \['model\.onnx'\].*leave `backend`"),
        ([], r"no SavedModel .*it is empty"),
        (["model.savedmodel"], r"'model\.savedmodel' is a file .*a SavedModel is a folder"),
        (["model.savedmodel/saved_model.pbtxt"], r"has saved_model\.pbtxt, the graph as text"),
        (["model.savedmodel/variables/x"], r"should have saved_model\.pb, but has no such file"),
    ],
)
def test_a_folder_without_a_saved_model_says_what_it_holds(
    tmp_path: Path, names: list[str], said: str
) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")

    with pytest.raises(LoadFailed, match=said):
        complete(ModelFiles(tmp_path / "m", 1))
