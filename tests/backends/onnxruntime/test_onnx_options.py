"""What model parameters and the placement make of a session."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement
from trivet.backends.onnxruntime.options import SessionPlan, plan_session
from trivet.protos.model_config_pb2 import ModelConfig


def plan(
    text: str = "", *, cpu_threads: int = 1, kind: str = "KIND_CPU", path: Path = Path("/nowhere")
) -> SessionPlan:
    config = text_format.Parse(text, ModelConfig(name="m"))
    return plan_session(config, ModelFiles(path / "m", 1), Placement("m_0_0", kind, 0, cpu_threads))


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


@pytest.mark.parametrize(
    ("count", "cpu_threads", "expected"),
    [(1, 8, 8), (2, 4, 7), (2, 1, 1), (4, 1, 1), (1, 1, 1)],
)
def test_shared_pool_and_its_callers_use_each_core_once(
    count: int, cpu_threads: int, expected: int
) -> None:
    text = f"instance_group {{ kind: KIND_CPU count: {count} }}"

    assert plan(text, cpu_threads=cpu_threads).intra_op_threads == expected


def test_parameters_of_triton_are_honoured() -> None:
    found = plan(
        parameter("intra_op_thread_count", "3")
        + parameter("inter_op_thread_count", "2")
        + parameter("execution_mode", "1")
        + parameter("enable_mem_arena", "0")
        + parameter("enable_mem_pattern", "0")
        + parameter("memory.enable_memory_arena_shrinkage", "cpu:0")
        + parameter("session.intra_op.allow_spinning", "0")
        + "optimization { graph { level: -1 } }"
    )
    options = found.options()

    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 2
    assert options.execution_mode.name == "ORT_PARALLEL"
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    run_options = found.run_options()
    assert run_options is not None
    key = "memory.enable_memory_arena_shrinkage"
    assert run_options.get_run_config_entry(key) == "cpu:0"


@pytest.mark.parametrize(
    ("level", "name"), [(-1, "ORT_ENABLE_BASIC"), (0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED")]
)
def test_graph_level_is_tritons(level: int, name: str) -> None:
    assert plan(f"optimization {{ graph {{ level: {level} }} }}").level == name


@pytest.mark.parametrize("value", ["two", "-1", "1.5"])
def test_count_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig, match=f"'intra_op_thread_count'.*whole number.*'{value}'"):
        plan(parameter("intra_op_thread_count", value))


def test_gpu_without_its_provider_names_the_extra() -> None:
    with pytest.raises(LoadFailed, match=r"CUDAExecutionProvider.*pip install trivet\[onnx-gpu\]"):
        plan(kind="KIND_GPU")


def test_unknown_accelerator_is_refused() -> None:
    text = 'optimization { execution_accelerators { cpu_execution_accelerator { name: "warp" } } }'

    with pytest.raises(InvalidConfig, match=r"'warp'.*openvino"):
        plan(text)


def test_providers_keep_the_order_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: names)
    text = """optimization { execution_accelerators { gpu_execution_accelerator {
        name: "tensorrt"
        parameters { key: "precision_mode" value: "FP16" }
        parameters { key: "max_workspace_size_bytes" value: "1024" } } } }"""

    found = plan(text + parameter("gpu_mem_limit", "99"), kind="KIND_GPU")

    assert [name for name, _ in found.providers] == names
    assert dict(found.providers[0][1]) == {
        "device_id": "0",
        "trt_fp16_enable": "True",
        "trt_max_workspace_size": "1024",
    }
    assert dict(found.providers[1][1]) == {"device_id": "0", "gpu_mem_limit": "99"}
    assert not found.is_shareable


def test_operator_library_outside_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "evil.so").touch()

    with pytest.raises(InvalidConfig, match="outside the folder"):
        plan('model_operations { op_library_filename: "../../evil.so" }', path=tmp_path)
