"""SavedModels and Keras's files compute what their libraries do, or say why they cannot."""

import numpy as np
import pytest
from onnx_models import run_one
from tensorflow_results import Site, array_of

from trivet.backends.api import ModelFiles, Placement
from trivet.backends.tflite.backend import TfLiteBackend
from trivet.protos.model_config_pb2 import TYPE_INT8, ModelConfig


@pytest.mark.parametrize("name", ["exported", "zipped", "older", "branching", "unbuilt"])
def test_outputs_are_those_of_the_library(site: Site, name: str) -> None:
    outputs, expected = site.arrays(name, "outputs"), site.arrays(name, "expected")

    assert outputs.keys() == expected.keys()
    for each in outputs:
        np.testing.assert_allclose(outputs[each], expected[each], rtol=1e-5)


def test_texts_are_bytes_and_bfloat16_is_kept(site: Site) -> None:
    outputs = site.results["texts"]["outputs"]

    assert outputs["upper"] == {"shape": [3], "values": ["ABÿ", "", "C\0"]}
    assert outputs["doubled"]["values"] == [2, 4, 6, 8, 10, 1]
    assert site.results["texts/one"]["outputs"] == {"same": {"shape": [], "values": ["a\0"]}}


@pytest.mark.parametrize("name", ["exported", "zipped", "older", "unbuilt"])
def test_all_forms_of_a_model_have_the_same_config(site: Site, name: str) -> None:
    """Also of one that was built by its first batch, whose size Keras records."""
    config = site.results[name]["config"]

    assert [each["dims"] for each in config["input"]] == [[4]]
    assert [(each["name"], each["dims"]) for each in config["output"]] == [("output_0", [2])]
    assert config["max_batch_size"] > 1
    assert "dynamic_batching" in config


def test_inputs_and_outputs_of_keras_have_the_names_that_it_exports(site: Site) -> None:
    config = site.results["branching"]["config"]

    assert {each["name"]: each["dims"] for each in config["input"]} == {"a": [4], "b": [-1, 2]}
    assert {each["name"] for each in config["output"]} == {"sum", "largest"}
    assert site.results["zipped"]["config"]["input"][0]["name"] == "x"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("foreign_operation", ["operation 'MyOwn1'", "model_operations", "op_library_filename"]),
        ("cut_variables", ["cannot load 'model.savedmodel'", "copy the folder again"]),
        ("cut_index", ["cannot load 'model.savedmodel'", "copy the folder again"]),
        ("cut_keras", ["'model.keras' is no whole .keras file", "Copy it again"]),
        ("cut_h5", ["cannot load 'model.h5'", "truncated file"]),
        ("weights", ["'model.h5' has weights only", "model.save"]),
        ("lambda", ["'model.keras' has a Lambda layer", "never run here", "model.export"]),
        ("own", ["'model.keras' has a layer of the author's own", "'Own'", "model.export"]),
        ("exported/threads", ["'TF_NUM_INTRA_THREADS'", "got '-1'"]),
        ("exported/libraries", ["'1/ops.so'", "is no library of operations"]),
    ],
)
def test_what_cannot_be_served_is_named_with_the_remedy(
    site: Site, name: str, said: list[str]
) -> None:
    error = site.results[name]["error"]

    for each in said:
        assert each in error
    assert str(site.folder) not in error


def test_a_converted_model_computes_the_same_by_litert(site: Site) -> None:
    told = site.results["lite"]
    files = ModelFiles(site.folder / "lite", 1)
    config = TfLiteBackend().complete(ModelConfig(name="m"), files)
    instance = TfLiteBackend().open(config, files, Placement("m_0", "KIND_CPU", 0, 1))

    outputs = run_one(instance, x=array_of(told["inputs"]).astype(np.float32))

    assert config.max_batch_size > 1
    expected = array_of(told["expected"]["output_0"])
    np.testing.assert_allclose(outputs["output_0"], expected, rtol=1e-4, atol=1e-5)


def test_a_quantised_model_is_served_in_its_own_numbers(site: Site) -> None:
    files = ModelFiles(site.folder / "quantised", 1)
    config = TfLiteBackend().complete(ModelConfig(name="m"), files)
    instance = TfLiteBackend().open(config, files, Placement("m_0", "KIND_CPU", 0, 1))

    outputs = run_one(instance, x=np.array([[-128, 0, 1, 127]], np.int8))

    assert [t.data_type for t in (*config.input, *config.output)] == [TYPE_INT8, TYPE_INT8]
    assert outputs["output_0"].dtype == np.int8
