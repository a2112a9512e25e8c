"""Config files: defaults, versions, instances, and errors with file, line and a way out."""

from pathlib import Path

import pytest

from trivet.backends.api import InvalidConfig, to_json_dict
from trivet.backends.registry import about_of
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trivet.server.repository.check import check
from trivet.server.repository.config import (
    instances,
    normalise,
    parse_config,
    read_config,
    select_versions,
)

SIMPLE = """
backend: "identity" max_batch_size: 8
input [{ name: "A" data_type: TYPE_FP32 dims: [ 16 ] }]
output [{ name: "B" data_type: TYPE_FP32 dims: [ 16 ] }]
"""


def write(folder: Path, text: str, name: str = "m") -> Path:
    model = folder / name
    model.mkdir()
    (model / "config.pbtxt").write_text(text)
    return model


@pytest.mark.parametrize(
    ("text", "position", "what"),
    [
        ("max_batch_size: 'x'", "1:17", "integer"),
        ("\n\nmax_batch_sise: 3", "3:1", "did you mean 'max_batch_size'?"),
        ("input [{ nam: 'A' }]", "1:10", "unknown field 'nam' in ModelInput; did you mean 'name'?"),
        ("input [{ name: 'A' data_type: TYPE_FP33 }]", "1:31", "TYPE_FP33"),
        ("input [{", "1:", ""),
        ("dynamic_batching {} sequence_batching {}", "1:21", "oneof"),
        ("instance_group [{ kind: KIND_TPU }]", "1:25", "KIND_TPU"),
        ("max_batch_size: 99999999999", "1:17", "out of range"),
        ("zzz: 1", "1:1", "known are name, platform"),
        ("version_policy: { latest { num_versions: -1 } }", "1:42", "-1"),
    ],
)
def test_a_syntax_error_gives_its_place(
    tmp_path: Path, text: str, position: str, what: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        read_config(write(tmp_path, text))
    assert refused.value.message.startswith(f"m/config.pbtxt:{position}")
    assert what.lower() in refused.value.message.lower()


def test_a_name_that_is_not_the_folder_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="name is 'other' but the model's folder is 'm'"):
        read_config(write(tmp_path, 'name: "other"'))


def test_a_config_that_is_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    model = write(tmp_path, "")
    (model / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="not UTF-8"):
        read_config(model)
    (model / "config.pbtxt").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(InvalidConfig, match=r"1048577 bytes; at most 1048576"):
        read_config(model)


def test_without_a_file_only_the_name_is_set(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert read_config(tmp_path / "m") == ModelConfig(name="m")


def test_an_override_replaces_the_file(tmp_path: Path) -> None:
    model = write(tmp_path, "max_batch_size: 8")
    config = read_config(model, '{"max_batch_size": 2, "backend": "python"}')
    assert (config.name, config.max_batch_size, config.backend) == ("m", 2, "python")
    with pytest.raises(InvalidConfig, match="not JSON"):
        read_config(model, "{")
    with pytest.raises(InvalidConfig, match="max_batch_sise"):
        read_config(model, '{"max_batch_sise": 2}')


BAD_CONFIGS = {
    "max_batch_size: -1": "max_batch_size must be 0 or more, got -1",
    "input [{ data_type: TYPE_FP32 dims: [1] }]": "an input has no name",
    "input [{ name: 'X' dims: [1] }]": "input 'X' must specify a data_type",
    "input [{ name: 'X' data_type: TYPE_FP32 dims: [0] }]": "input 'X' has dimension 0",
    "output [{ name: 'X' data_type: TYPE_FP32 dims: [-2] }]": "output 'X' has dimension -2",
    "max_batch_size: 1 input [{ name: 'X' data_type: TYPE_FP32 }]": "input 'X' must specify dims",
    "input [{ name: 'X' data_type: TYPE_FP32 dims: [1] }, "
    "{ name: 'X' data_type: TYPE_FP32 dims: [1] }]": "input 'X' is configured twice",
    "input [{ name: 'X' data_type: TYPE_FP32 dims: [4] reshape { shape: [3] } }]": (
        "reshape [3] of another size than dims [4]"
    ),
    "input [{ name: 'X' data_type: TYPE_FP32 dims: [-1] reshape { shape: [1] } }]": (
        "as many -1 in reshape [1] as in dims"
    ),
    "input [{ name: 'X' data_type: TYPE_FP32 dims: [1] reshape { shape: [0] } }]": (
        "reshape dimension 0"
    ),
    "output [{ name: 'X' data_type: TYPE_FP32 dims: [1] label_filename: '../../etc/passwd' }]": (
        "label_filename '../../etc/passwd', which must be a path inside the model's folder"
    ),
    "input [{ name: 'X' data_type: TYPE_FP32 dims: [3, 4] format: FORMAT_NCHW }]": (
        "format of images, which needs 3 dims, got [3, 4]"
    ),
    "response_cache { enable: true } sequence_batching {}": (
        "response_cache cannot be enabled with sequence_batching"
    ),
    "default_model_filename: '/x'": "default_model_filename '/x' must be a path inside",
    "max_batch_size: 4 dynamic_batching { preferred_batch_size: [8] }": (
        "preferred size must be positive and <= max_batch_size 4, got 8"
    ),
    "max_batch_size: 4 dynamic_batching { priority_levels: 2 }": (
        "default_priority_level must be from 1 to priority_levels 2, got 0"
    ),
    "max_batch_size: 4 dynamic_batching { priority_levels: 1 default_priority_level: 1 "
    "priority_queue_policy { key: 3 value {} } }": "priority_queue_policy for level 3",
    "max_batch_size: 4 dynamic_batching { preserve_ordering: true priority_levels: 2 "
    "default_priority_level: 1 }": "preserve_ordering allows only one priority level",
    "max_batch_size: 4 dynamic_batching { preserve_ordering: true default_queue_policy "
    "{ timeout_action: DELAY } }": "preserve_ordering does not allow timeout_action DELAY",
    "instance_group [{ count: 2000 }]": "asks for 2000 instances; at most 1024",
    "instance_group [{ name: 'g' count: -3 }]": "instance_group 'g' has count -3",
    "instance_group [{ passive: true }, { count: 2 passive: true }]": (
        "every instance_group is passive"
    ),
    "model_repository_agents { agents { name: 'checksum' } }": (
        "model_repository_agents asks for checksum, but no agents run here"
    ),
    "version_policy { specific {} }": "version_policy specific must list at least one version",
    "version_policy { specific { versions: [0] } }": "versions start at 1",
    "model_warmup [{}]": "a model_warmup has no name",
    "max_batch_size: 2 model_warmup [{ name: 'w' batch_size: 3 }]": (
        "model_warmup 'w' has batch_size 3 over max_batch_size 2"
    ),
    "model_warmup [{ name: 'w' inputs { key: 'X' value { data_type: TYPE_FP32 } } }]": (
        "needs zero_data, random_data or input_data_file"
    ),
    "model_warmup [{ name: 'w' inputs { key: 'X' value { zero_data: true } } }]": (
        "input 'X' must specify a data_type"
    ),
    "model_warmup [{ name: 'w' inputs { key: 'X' value { data_type: TYPE_FP32 dims: [-1] "
    "zero_data: true } } }]": "must give all dims, got [-1]",
    "model_warmup [{ name: 'w' inputs { key: 'X' value { data_type: TYPE_FP32 zero_data: true "
    "dims: [4000000000, 2] } } }]": "up to 64000000000 bytes; at most 8589934592 are allowed",
    "model_warmup [{ name: 'w' inputs { key: 'X' value { data_type: TYPE_FP32 dims: [1] "
    "input_data_file: '../x' } } }]": "outside warmup/",
    "input [{ name: 'A' data_type: TYPE_FP32 dims: [1] }] model_warmup [{ name: 'w' inputs "
    "{ key: 'X' value { data_type: TYPE_FP32 dims: [1] zero_data: true } } }]": (
        "gives input 'X', which the model does not have"
    ),
}


@pytest.mark.parametrize("text", BAD_CONFIGS)
@pytest.mark.more_of("R25")
def test_a_config_that_contradicts_itself_is_refused(text: str) -> None:
    config = parse_config(text, "m/config.pbtxt")
    config.name = "m"
    with pytest.raises(InvalidConfig) as refused:
        check(config)
    assert refused.value.message.startswith("model 'm': ")
    assert BAD_CONFIGS[text] in refused.value.message


def test_a_good_config_passes() -> None:
    check(normalise(parse_config(SIMPLE, "m/config.pbtxt")))


def test_defaults_are_written_out_as_triton_shows_them() -> None:
    config = normalise(parse_config(SIMPLE + "name: 'm' dynamic_batching {}", "m/config.pbtxt"))
    shown = to_json_dict(config)
    assert shown["version_policy"] == {"latest": {"num_versions": 1}}
    assert shown["dynamic_batching"]["preferred_batch_size"] == [8]
    (group,) = shown["instance_group"]
    assert (group["name"], group["kind"], group["count"]) == ("m", "KIND_CPU", 1)
    assert shown["input"][0]["dims"] == [16]
    assert shown["max_batch_size"] == 8


def test_a_model_without_pinned_memory_is_shown_so() -> None:
    given = ModelConfig(name="m")
    given.optimization.input_pinned_memory.enable = False
    shown = normalise(given).optimization
    assert (shown.input_pinned_memory.enable, shown.output_pinned_memory.enable) == (False, True)


def test_onnx_models_get_two_instances_on_a_cpu_and_one_per_gpu() -> None:
    config, onnx = ModelConfig(name="m"), about_of("onnxruntime")
    assert [p.name for p in instances(normalise(config, onnx))] == ["m_0", "m_1"]
    on_gpus = instances(normalise(config, onnx, num_gpus=2))
    assert [(p.kind, p.device_id) for p in on_gpus] == [("KIND_GPU", 0), ("KIND_GPU", 1)]


def test_several_groups_are_numbered_and_passive_ones_do_not_run() -> None:
    group = ModelInstanceGroup
    config = ModelConfig(
        name="m", instance_group=[group(count=2), group(count=1, passive=True), group(name="own")]
    )
    assert [p.name for p in instances(normalise(config))] == ["m_0_0", "m_0_1", "own_2"]


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", [10]),
        ("version_policy { latest { num_versions: 2 } }", [3, 10]),
        ("version_policy { all {} }", [1, 3, 10]),
        ("version_policy { specific { versions: [1, 3, 7] } }", [1, 3]),
    ],
)
def test_the_version_policy_chooses(policy: str, served: list[int]) -> None:
    assert select_versions(parse_config(policy, ""), {10, 1, 3}) == served


def test_a_named_config_is_read_where_a_model_has_it(tmp_path: Path) -> None:
    (tmp_path / "m/configs").mkdir(parents=True)
    (tmp_path / "m/config.pbtxt").write_text("max_batch_size: 1")
    (tmp_path / "m/configs/large.pbtxt").write_text("max_batch_size: 64")
    sizes = [
        read_config(tmp_path / "m", config_name=name).max_batch_size
        for name in ("", "large", "small")
    ]
    assert sizes == [1, 64, 1]
    (tmp_path / "m/configs/large.pbtxt").write_text("max_batch: 64")
    with pytest.raises(InvalidConfig, match=r"m/configs/large.pbtxt:1:1: unknown field"):
        read_config(tmp_path / "m", config_name="large")


def test_a_named_config_that_the_disk_does_not_tell_of_is_no_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other config would be another model."""

    def fail(path: Path) -> bool:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(Path, "is_file", fail)
    with pytest.raises(InvalidConfig, match=r"m/configs/small.pbtxt: cannot be read: Input/output"):
        read_config(tmp_path / "m", config_name="small")
