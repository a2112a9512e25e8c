"""What OpenVINO's models are served as, and what is said of those that cannot be."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_models
import openvino as ov
import pytest
from google.protobuf import text_format
from onnx_models import make_request, run_batch, run_one
from openvino_models import flattening, identity, save_ir, weighted

from trivet.backends.api import InvalidConfig, InvalidRequest, LoadFailed, ModelFiles, Placement
from trivet.backends.openvino.backend import OpenVinoBackend
from trivet.backends.openvino.instance import OpenVinoInstance
from trivet.backends.openvino.options import properties
from trivet.backends.registry import choose_about
from trivet.protos.model_config_pb2 import TYPE_FP32, ModelConfig

FOUR = np.arange(8, dtype=np.float32).reshape(2, 4)
PLACED = Placement("m_0", "KIND_CPU", 0, 2)


class Home:
    """The folder of model 'm'."""

    def __init__(self, root: Path) -> None:
        self.files = ModelFiles(root / "m", 1)
        self.folder = self.files.version_dir
        self.folder.mkdir(parents=True)

    def put(self, model: ov.Model) -> None:
        save_ir(self.folder / "model.xml", model)

    def complete(self, text: str = "") -> ModelConfig:
        return OpenVinoBackend().complete(given(text), self.files)

    def open(self, text: str = "", placement: Placement = PLACED) -> OpenVinoInstance:
        return OpenVinoBackend().open(self.complete(text), self.files, placement)


def given(text: str = "", **parameters: str) -> ModelConfig:
    config = text_format.Parse(text, ModelConfig(name="m"))
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return config


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_config_comes_from_the_file(home: Home) -> None:
    home.put(weighted((-1, 4)))

    config = home.complete()

    assert choose_about(given(), home.files).word == "openvino"
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("x", TYPE_FP32, [4])]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("y", TYPE_FP32, [3])]
    assert config.max_batch_size > 1


def test_values_are_those_of_the_library(home: Home) -> None:
    home.put(weighted())
    instance = home.open()
    expected = ov.compile_model(home.folder / "model.xml", "CPU")(FOUR)[0]

    batch = run_batch(instance, make_request({"x": FOUR}), make_request({"x": FOUR[:1]}))
    first, second = (outputs[0].numpy() for outputs in batch.outputs)
    run_one(instance, x=FOUR * 3)

    assert first.tolist() == expected.tolist()
    assert second.tolist() == expected[:1].tolist()


def test_inputs_are_read_as_requests_have_them(home: Home) -> None:
    """Bytes of a request cannot be written to; steps of ensembles hand on every other row."""
    home.put(identity(ov.Type.f32))
    rows = np.arange(16, dtype=np.float32).reshape(4, 4)
    rows.flags.writeable = False

    assert run_one(home.open(), x=rows[::2])[name_of(home)].tolist() == rows[::2].tolist()


def name_of(home: Home) -> str:
    """An output that has no name gets one from OpenVINO."""
    return home.complete().output[0].name


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ov.Type.boolean, np.array([[True, False]])),
        (ov.Type.i8, np.array([[-128, 127]], np.int8)),
        (ov.Type.u64, np.array([[0, 1 << 63]], np.uint64)),
        (ov.Type.i64, np.array([[-1, 1 << 62]], np.int64)),
        (ov.Type.f16, np.array([[0.5, 6e4]], np.float16)),
        (ov.Type.f64, np.array([[0.1, 1e300]], np.float64)),
        (ov.Type.bf16, np.array([[1, 3e38]], ml_dtypes.bfloat16)),
        (ov.Type.string, np.array([["ab", ""]], object)),
    ],
    ids=str,
)
def test_every_datatype_goes_through_unchanged(
    home: Home, kind: ov.Type, values: np.ndarray
) -> None:
    home.put(identity(kind, (-1, 2)))

    (output,) = run_one(home.open(), x=values).values()

    if kind == ov.Type.string:
        assert output.tolist() == [[b"ab", b""]]
    else:
        assert output.dtype == values.dtype
        assert output.tolist() == values.tolist()


def test_a_text_that_is_no_utf8_fails_its_request_and_no_other(home: Home) -> None:
    home.put(identity(ov.Type.string, (-1, 1)))

    batch = run_batch(
        home.open(),
        make_request({"x": np.array([[b"\xff"]], object)}),
        make_request({"x": np.array([["ok"]], object)}),
    )

    assert isinstance(batch.errors[0], InvalidRequest)
    assert batch.outputs[1][0].numpy().tolist() == [[b"ok"]]


def test_batches_keep_to_what_the_file_says(home: Home) -> None:
    home.put(identity(ov.Type.f32, ((1, 3), 4)))

    assert home.complete().max_batch_size == 3
    with pytest.raises(InvalidConfig, match="max_batch_size is 8"):
        home.complete("max_batch_size: 8")


def test_a_file_made_for_one_row_takes_batches_where_the_config_asks(home: Home) -> None:
    home.put(weighted((1, 4)))

    assert home.complete().max_batch_size == 0
    assert list(home.complete("max_batch_size: 8").input[0].dims) == [4]
    assert run_one(home.open("max_batch_size: 8"), x=FOUR)["y"].shape == (2, 3)


def test_a_graph_that_gives_one_row_whatever_comes_is_not_batched(home: Home) -> None:
    home.put(flattening())

    with pytest.raises(InvalidConfig, match=r"batches of 1 .*do not grow.*max_batch_size: 0"):
        home.complete("max_batch_size: 8")


def test_the_dims_of_the_config_are_taken_where_it_says_so(home: Home) -> None:
    home.put(identity(ov.Type.f32, (-1, -1)))
    text = 'max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: [5] }'
    config = given(text, RESHAPE_IO_LAYERS="YES")

    completed = OpenVinoBackend().complete(config, home.files)

    assert list(completed.output[0].dims) == [5]


def test_an_onnx_file_is_openvinos_where_a_config_says_so(home: Home) -> None:
    (home.folder / "model.onnx").write_bytes(onnx_models.add_sub_model())
    text = 'backend: "openvino"'
    ones = np.ones((2, 4), np.float32)

    assert choose_about(given(), home.files).word == "onnxruntime"
    assert choose_about(given(text), home.files).word == "openvino"
    assert run_one(home.open(text), a=ones, b=ones)["sum"].tolist() == (ones * 2).tolist()


def cut_weights(home: Home) -> None:
    path = home.folder / "model.bin"
    path.write_bytes(path.read_bytes()[:20])


def lose_weights(home: Home) -> None:
    (home.folder / "model.bin").unlink()


def cut_graph(home: Home) -> None:
    path = home.folder / "model.xml"
    path.write_text(path.read_text()[:600])


def write_page(home: Home) -> None:
    (home.folder / "model.xml").write_text("<html><body>404</body></html>")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_weights, r"'model\.bin' is shorter than 'model\.xml' says \(20 bytes\)"),
        (lose_weights, r"weights of 'model\.xml' are missing; put 'model\.bin' beside it"),
        (cut_graph, r"cannot read 'model\.xml', which is cut off or damaged: .*[Cc]opy"),
        (write_page, r"cannot read 'model\.xml', which is an HTML or XML page"),
    ],
)
@pytest.mark.more_of("R28")
def test_files_that_are_not_whole_are_named_with_the_remedy(
    home: Home, spoil: Callable[[Home], None], said: str
) -> None:
    home.put(weighted())
    spoil(home)

    with pytest.raises(LoadFailed, match=said) as caught:
        home.complete()

    assert str(home.folder) not in caught.value.message


def test_one_stream_of_the_placements_threads_is_usual() -> None:
    assert properties(given(), PLACED) == {"INFERENCE_NUM_THREADS": "2", "NUM_STREAMS": "1"}


def test_parameters_of_triton_and_older_names_are_openvinos_properties() -> None:
    config = given(
        CPU_THREADS_NUM="5",
        CPU_THROUGHPUT_STREAMS="auto",
        HINT_BF16="YES",
        PERFORMANCE_HINT="throughput",
    )

    assert properties(config, PLACED) == {
        "INFERENCE_NUM_THREADS": "5",
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": "AUTO",
        "PERFORMANCE_HINT": "THROUGHPUT",
    }


def test_tritons_oldest_names_are_read_too() -> None:
    config = given(ENFORCE_BF16="yes", CPU_BIND_THREAD="no")

    assert properties(config, PLACED) == {
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_NUM_THREADS": "2",
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": "1",
    }
    assert "ENABLE_CPU_PINNING" not in properties(given(CPU_BIND_THREAD="NUMA"), PLACED)


def test_a_graph_may_be_given_the_same_number_of_rows_always(home: Home) -> None:
    """As Triton's SKIP_OV_DYNAMIC_BATCHSIZE with ENABLE_BATCH_PADDING does."""
    home.put(weighted((1, 4)))
    text = "max_batch_size: 4"
    usual = run_one(home.open(text), x=FOUR)["y"]

    config = given(text, SKIP_OV_DYNAMIC_BATCHSIZE="YES", ENABLE_BATCH_PADDING="YES")
    completed = OpenVinoBackend().complete(config, home.files)
    instance = OpenVinoBackend().open(completed, home.files, PLACED)

    assert list(completed.input[0].dims) == [4]
    np.testing.assert_allclose(run_one(instance, x=FOUR)["y"], usual, rtol=1e-6)
    asked = [make_request({"x": values}) for values in (FOUR[:1], FOUR, FOUR[1:])]
    rows = [tensors[0].numpy() for tensors in run_batch(instance, *asked).outputs]
    np.testing.assert_allclose(rows[2], usual[1:], rtol=1e-6)
    home.put(flattening())
    with pytest.raises(InvalidConfig, match="cannot be given 4 rows, its max_batch_size"):
        OpenVinoBackend().complete(config, home.files)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "TARGET_DEVICE",
            "GPU",
            "'TARGET_DEVICE' is 'GPU'; backend 'openvino' computes on the CPU",
        ),
        ("CPU_EXTENSION_PATH", "/opt/x.so", r"is not read, .*op_library_filename"),
        ("CPU_BIND_THREAD", "maybe", "'CPU_BIND_THREAD' must be YES, NO or NUMA, got 'maybe'"),
        ("INFERENCE_NUM_THREADS", "many", r"'INFERENCE_NUM_THREADS' .*got 'many'"),
        ("NUM_STREAMS", "many", r"'NUM_STREAMS' must be AUTO, NUMA or a whole"),
        ("PERFORMANCE_HINT", "fast", "must be LATENCY, THROUGHPUT or CUMULATIVE_"),
        ("HINT_BF16", "maybe", r"'HINT_BF16' must be YES or NO, got 'maybe'"),
        ("RESHAPE_IO_LAYERS", "maybe", r"'RESHAPE_IO_LAYERS' must be YES or NO"),
    ],
)
def test_a_bad_parameter_is_named(home: Home, name: str, value: str, said: str) -> None:
    home.put(weighted())

    config = given(**{name: value})
    config.MergeFrom(home.complete())

    with pytest.raises(LoadFailed, match=said):
        OpenVinoBackend().open(config, home.files, PLACED)


def test_a_library_of_operations_that_is_none_is_told(home: Home) -> None:
    home.put(weighted())
    (home.folder / "ops.so").write_text("none")

    with pytest.raises(LoadFailed, match=r"'ops\.so' .*is no library of operations"):
        home.complete('model_operations { op_library_filename: "ops.so" }')


def test_a_gpu_is_refused(home: Home) -> None:
    home.put(weighted())

    with pytest.raises(InvalidConfig, match="computes on the CPU"):
        home.open(placement=Placement("m_0", "KIND_GPU", 0, 1))
