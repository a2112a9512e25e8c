"""What a .tflite file is served as, and what is said of one that cannot be."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from onnx_models import make_request, run_batch, run_one
from tflite_models import (
    INT8,
    STRING,
    constant_model,
    custom_model,
    identity_model,
    tflite_model,
)

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement
from trivet.backends.registry import choose_about
from trivet.backends.tflite.backend import TfLiteBackend
from trivet.backends.tflite.instance import TfLiteInstance
from trivet.protos.model_config_pb2 import TYPE_FP32, ModelConfig

FOUR = np.arange(8, dtype=np.float32).reshape(2, 4)


class Home:
    """The folder of model 'm'."""

    def __init__(self, root: Path) -> None:
        self.files = ModelFiles(root / "m", 1)
        self.files.version_dir.mkdir(parents=True)

    def put(self, content: bytes) -> None:
        (self.files.version_dir / "model.tflite").write_bytes(content)

    def complete(self, text: str = "") -> ModelConfig:
        given = text_format.Parse(text, ModelConfig(name="m"))
        return TfLiteBackend().complete(given, self.files)

    def open(self, text: str = "", kind: str = "KIND_CPU") -> TfLiteInstance:
        placement = Placement("m_0", kind, 0, 1)
        return TfLiteBackend().open(self.complete(text), self.files, placement)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_config_and_names_come_from_the_signature(home: Home) -> None:
    home.put(tflite_model())

    config = home.complete()

    assert choose_about(ModelConfig(name="m"), home.files).word == "tflite"
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("in", TYPE_FP32, [4])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("out", TYPE_FP32, [4])]
    assert config.max_batch_size > 1


def test_a_file_without_signatures_is_served_by_the_names_of_its_graph(home: Home) -> None:
    home.put(tflite_model(signatures=()))
    instance = home.open()

    for rows in (FOUR, FOUR[:1], FOUR):
        assert run_one(instance, x=rows)["y"].tolist() == (rows * 2).tolist()


def test_batches_of_any_size_follow_each_other(home: Home) -> None:
    home.put(tflite_model())
    instance = home.open()

    batch = run_batch(instance, make_request({"in": FOUR}), make_request({"in": FOUR[:1]}))
    alone = run_one(instance, **{"in": FOUR[1:]})

    assert [t.numpy().tolist() for outputs in batch.outputs for t in outputs] == [
        (FOUR * 2).tolist(),
        (FOUR[:1] * 2).tolist(),
    ]
    assert alone["out"].tolist() == (FOUR[1:] * 2).tolist()


def test_outputs_are_no_longer_the_interpreters(home: Home) -> None:
    home.put(tflite_model())
    instance = home.open()

    first = run_one(instance, **{"in": FOUR})["out"]
    run_one(instance, **{"in": FOUR * 5})

    assert first.tolist() == (FOUR * 2).tolist()


def test_inputs_are_read_as_requests_have_them(home: Home) -> None:
    """Bytes of a request cannot be written to; steps of ensembles hand on every other row."""
    home.put(tflite_model())
    instance = home.open()
    rows = np.arange(16, dtype=np.float32).reshape(4, 4)
    rows.flags.writeable = False

    assert run_one(instance, **{"in": rows[::2]})["out"].tolist() == (rows[::2] * 2).tolist()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (INT8, np.array([[-128, 0, 1, 127]], np.int8)),
        (STRING, np.array([[b"", b"a\0", b"\xff", "é".encode()]], object)),
    ],
)
def test_quantised_numbers_and_texts_go_through_as_they_are(
    home: Home, kind: int, values: np.ndarray
) -> None:
    home.put(identity_model(kind))

    assert run_one(home.open(), x=values)["x"].tolist() == values.tolist()


def test_a_file_made_for_one_row_takes_batches_where_the_config_asks(home: Home) -> None:
    home.put(tflite_model((1, 4)))

    asked = home.complete("max_batch_size: 8")

    assert home.complete().max_batch_size == 0
    assert list(home.complete().input[0].dims) == [1, 4]
    assert list(asked.input[0].dims) == [4]
    assert run_one(home.open("max_batch_size: 8"), **{"in": FOUR})["out"].shape == (2, 4)


def test_a_graph_that_gives_one_row_whatever_comes_is_not_batched(home: Home) -> None:
    home.put(constant_model())

    with pytest.raises(InvalidConfig, match=r"batches of 1 .*'fixed' does not grow.*_size: 0"):
        home.complete("max_batch_size: 8")


def test_a_signature_is_chosen_by_a_parameter(home: Home) -> None:
    home.put(tflite_model(signatures=("a", "b")))
    named = 'parameters {{ key: "signature" value {{ string_value: "{}" }} }}'

    assert home.complete(named.format("b")).input[0].name == "in"
    with pytest.raises(InvalidConfig, match=r"'serving_default', but \['a', 'b'\]"):
        home.complete()
    with pytest.raises(InvalidConfig, match=r"no signature 'c', but"):
        home.complete(named.format("c"))


def test_a_file_cut_off_anywhere_is_told(home: Home) -> None:
    whole = tflite_model()
    for length in range(0, len(whole) - 8, 50):
        home.put(whole[:length])
        with pytest.raises(LoadFailed, match=r"'model\.tflite' is not a whole \.tflite file"):
            home.complete()


def test_an_operation_that_is_not_there_is_named_with_the_remedy(home: Home) -> None:
    home.put(custom_model())

    with pytest.raises(LoadFailed, match=r"custom op: MyOwn.*TFLITE_BUILTINS.*model\.savedmodel"):
        home.complete()


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_number_of_threads_is_a_number(home: Home, value: str) -> None:
    home.put(tflite_model())
    text = f'parameters {{ key: "tflite_num_threads" value {{ string_value: "{value}" }} }}'

    with pytest.raises(InvalidConfig, match=rf"'tflite_num_threads' .*got '{value}'"):
        home.open(text)


def test_a_gpu_is_refused(home: Home) -> None:
    home.put(tflite_model())

    with pytest.raises(InvalidConfig, match="computes on the CPU"):
        home.open(kind="KIND_GPU")
