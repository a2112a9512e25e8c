"""Whatever is in a model's folder, reading it ends with a model or with an error for its owner."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from fuzzing import fuzzed, json_bodies, mutated
from hypothesis import given
from hypothesis import strategies as st
from onnx_models import zip_map_model
from serving import adder_bytes

from trivet.backends.api import ServingError
from trivet.backends.api.protobuf_file import MalformedMessage
from trivet.backends.onnxruntime.maps import without_maps
from trivet.backends.onnxruntime.modelfile import read_onnx_file
from trivet.server.repository.check import check
from trivet.server.repository.config import parse_config, read_config

PBTXT = """
name: "m"
backend: "identity"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4, -1 ] reshape { shape: [ 4 ] } } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }
version_policy { latest { num_versions: 2 } }
parameters { key: "a" value { string_value: "b" } }
sequence_batching { max_sequence_idle_microseconds: 5 control_input [ { name: "START"
  control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] } ] }
ensemble_scheduling { step [ { model_name: "x" model_version: -1
  input_map { key: "a" value: "b" } output_map { key: "c" value: "d" } } ] }
"""
JSON_CONFIG = {
    "name": "m",
    "backend": "identity",
    "max_batch_size": 4,
    "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": ["4"]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    "parameters": {"a": {"string_value": "b"}},
}
WORDS = st.sampled_from(
    [
        "name",
        ":",
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        "input",
        "dims",
        "-1",
        "99999999999999999999",
        "TYPE_FP32",
        "#",
        "\n",
        "\\",
        "\\x",
        "<",
        ">",
        ",",
        ";",
        "true",
        "nan",
        "1e999",
        "max_batch_size",
        "\0",
        "é",
    ]
)


def judge(text: str) -> None:
    with contextlib.suppress(ServingError):
        check(parse_config(text, "m"))


@fuzzed
@given(data=mutated(PBTXT.encode()))
def test_pbtxt_that_was_right_once(data: bytes) -> None:
    judge(data.decode(errors="replace"))


@fuzzed
@given(text=st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=200))
def test_pbtxt_of_any_words(text: str) -> None:
    judge(text)


@pytest.mark.parametrize("opening", ["{", "<", "a {", "input [ {", "input { reshape {"])
def test_pbtxt_nested_without_end(opening: str) -> None:
    judge(opening * 20_000)


@fuzzed
@given(body=json_bodies(JSON_CONFIG))
def test_overrides_over_the_network(spot: Path, body: bytes) -> None:
    with contextlib.suppress(ServingError):
        check(read_config(spot.parent, body.decode(errors="replace")))


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx") / "model.onnx"


@fuzzed
@given(data=mutated(adder_bytes(1)) | st.binary(max_size=100))
def test_onnx(spot: Path, data: bytes) -> None:
    spot.write_bytes(data)
    with contextlib.suppress(MalformedMessage):
        read_onnx_file(spot)


@fuzzed
@given(data=mutated(zip_map_model(np.ones((4, 2), np.float32))))
def test_onnx_with_maps(spot: Path, data: bytes) -> None:
    spot.write_bytes(data)
    with contextlib.suppress(MalformedMessage):
        without_maps(spot)
