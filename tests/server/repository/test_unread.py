"""What a config says in vain is found by name."""

import pytest
from google.protobuf import text_format

from trivet.backends.api import About
from trivet.backends.registry import about_of
from trivet.protos.model_config_pb2 import ModelConfig, ModelOptimizationPolicy
from trivet.server.repository.unread import unread_fields, unread_parameters

READER = About(
    word="reader",
    backend="",
    fields=("runtime", "optimization.graph"),
    parameters=("factor", "session.*"),
)
SILENT = About(word="silent", backend="")


def config_with(*names: str) -> ModelConfig:
    config = ModelConfig()
    for name in names:
        config.parameters[name].string_value = "1"
    return config


def test_parameters_that_nobody_reads_are_named() -> None:
    config = config_with("factor", "fastness", "session.threads", "sessions", "isolation")

    assert unread_parameters(config, READER) == ["fastness", "sessions"]


def test_a_backend_that_does_not_say_is_not_spoken_for() -> None:
    config = text_format.Parse('runtime: "x"', config_with("anything"))

    assert unread_parameters(config, SILENT) == []
    assert unread_fields(config, SILENT) == []


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('runtime: "x" optimization { graph { level: 1 } }', []),
        ("optimization { cuda { graphs: true } }", ["optimization.cuda"]),
        ("optimization { input_pinned_memory { enable: true } }", []),
        ("optimization { eager_batching: true }", ["optimization.eager_batching"]),
        ('input { name: "x" is_shape_tensor: true }', ["input.is_shape_tensor"]),
        (
            "instance_group { secondary_devices { device_id: 1 } }",
            ["instance_group.secondary_devices"],
        ),
        ('instance_group { count: 2 } instance_group { profile: "0" }', ["instance_group.profile"]),
        ('cc_model_filenames { key: "9.0" value: "x" }', ["cc_model_filenames"]),
        ("instance_group { count: 2 } max_batch_size: 8", []),
    ],
)
def test_fields_for_other_backends_are_named(text: str, fields: list[str]) -> None:
    assert unread_fields(text_format.Parse(text, ModelConfig()), READER) == fields


def test_what_nobody_reads_is_named_for_backends_that_do_not_say_too() -> None:
    config = config_with("TRITON_BATCH_STRATEGY_PATH", "anything")
    config.optimization.priority = ModelOptimizationPolicy.PRIORITY_MAX

    assert unread_parameters(config, SILENT) == ["TRITON_BATCH_STRATEGY_PATH"]
    assert unread_fields(config, SILENT) == ["optimization.priority"]


def test_a_shape_tensor_is_tensorrt_s_matter() -> None:
    config = text_format.Parse('input { name: "x" is_shape_tensor: true }', ModelConfig())

    assert unread_fields(config, about_of("tensorrt")) == []
    assert unread_fields(config, about_of("onnxruntime")) == ["input.is_shape_tensor"]


def test_onnx_runtime_s_parameters_are_known() -> None:
    config = config_with("gpu_mem_limit", "fastness", "session.intra_op.allow_spinning")

    assert unread_parameters(config, about_of("onnxruntime")) == ["fastness"]
