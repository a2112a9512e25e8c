"""Faults of a repository are found without serving it, with a code and a place."""

from collections.abc import Callable
from pathlib import Path

import pytest
from serving import adder_bytes, write_adder, write_identity

from trivet.backends.api import LoadFailed, ModelFiles
from trivet.backends.registry import open_backend
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.allowed import Allowed
from trivet.server.models.diagnostic import Diagnostic
from trivet.server.models.validate import validate


def file(root: Path, name: str, content: bytes | str = b"x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def config(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        file(root, "m/config.pbtxt", text)
        file(root, "m/1/model.py")

    return write


def link_out(root: Path) -> None:
    file(root, "m/1/model.py")
    (root / "m/1/x").symlink_to("/etc/passwd")


def traffic(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        write_identity(root, "m")
        file(root, "m/traffic.toml", text)

    return write


def ensemble(step: str, *, inner: str = "INPUT0") -> Callable[[Path], None]:
    """m, over model 'one' and another one."""

    def write(root: Path) -> None:
        write_identity(root, "one")
        write_identity(root, "two")
        (root / "m" / "1").mkdir(parents=True)
        steps = ((inner, "one", "a", "b"), ("INPUT0", step, "b", "c"))
        text = "".join(
            f'''step {{ model_name: "{model}"
            input_map {{ key: "{name}" value: "{source}" }}
            output_map {{ key: "OUTPUT0" value: "{made}" }} }}'''
            for name, model, source, made in steps
        )
        file(root, "m/config.pbtxt", f"ensemble_scheduling {{ {text} }}")

    return write


TENSOR = "input [{ name: 'A' data_type: TYPE_FP32 dims: [1] %s }]"
CASES: dict[str, tuple[Callable[[Path], None], str, int]] = {
    "repository-empty": (lambda root: None, "", 0),
    "config-syntax": (config("backend: 'python'\nmax_batch_size: x"), "m/config.pbtxt", 2),
    "config-unknown-field": (config("\nbackent: 'python'"), "m/config.pbtxt", 2),
    "config-unreadable": (config("name: 'n'"), "m/config.pbtxt", 0),
    "max-batch-size": (config("backend: 'python'\nmax_batch_size: -1"), "m/config.pbtxt", 2),
    "reshape": (config("\n" + TENSOR % "reshape { shape: [2] }"), "m/config.pbtxt", 2),
    "tensor-twice": (config(TENSOR % "" + TENSOR % ""), "m/config.pbtxt", 1),
    "data-type": (config("input [{ name: 'A' dims: [1] }]"), "m/config.pbtxt", 1),
    "dims": (config("input [{ name: 'A' data_type: TYPE_FP32 dims: [0] }]"), "m/config.pbtxt", 1),
    "label-path": (
        config("output [{ name: 'A' data_type: TYPE_FP32 dims: [1] label_filename: '/etc/x' }]"),
        "m/config.pbtxt",
        1,
    ),
    "label-file": (
        config("output [{ name: 'A' data_type: TYPE_FP32 dims: [1] label_filename: 'l.txt' }]"),
        "m/l.txt",
        0,
    ),
    "model-path": (config("default_model_filename: '/x'"), "m/config.pbtxt", 1),
    "preferred-size": (
        config("max_batch_size: 2\ndynamic_batching { preferred_batch_size: [4] }"),
        "m/config.pbtxt",
        1,
    ),
    "instance-group": (config("instance_group [{ count: 5000 }]"), "m/config.pbtxt", 1),
    "version-policy": (config("version_policy { specific {} }"), "m/config.pbtxt", 1),
    "warmup": (config("model_warmup [{}]"), "m/config.pbtxt", 1),
    "no-version": (lambda root: (root / "m").mkdir(), "m", 0),
    "no-version-selected": (
        config("version_policy { specific { versions: [3] } }"),
        "m/config.pbtxt",
        0,
    ),
    "version-name": (lambda root: file(root, "m/v1/model.onnx"), "m/v1", 0),
    "backend-unknown": (config("backend: 'nothing'"), "m/1", 0),
    "model-file": (lambda root: file(root, "m/1/model.onnx", "<html>"), "m/1", 0),
    "empty-file": (lambda root: file(root, "m/1/model.onnx", b""), "m/1/model.onnx", 0),
    "lfs-pointer": (
        lambda root: file(root, "m/1/model.onnx", "version https://git-lfs.github.com/spec/v1\n"),
        "m/1/model.onnx",
        0,
    ),
    "pickle": (lambda root: file(root, "m/1/weights.pkl"), "m/1/weights.pkl", 0),
    "not-a-model": (lambda root: file(root, "m/weights.pth"), "m", 0),
    "step-missing": (ensemble("nobody"), "m/config.pbtxt", 0),
    "ensemble-steps": (ensemble("two", inner="OUT"), "m/config.pbtxt", 0),
    "folder-unusable": (
        link_out,
        "m",
        0,
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_each_fault_has_its_code_and_place(tmp_path: Path, code: str) -> None:
    make, path, line = CASES[code]
    root = tmp_path / "models"
    root.mkdir()
    make(root)
    found = {each.code: each for each in validate([root])}
    assert code in found
    assert found[code].path == (path or str(root))
    assert found[code].line == line
    assert found[code].message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[rollout]\nmin_sample = 5", "'min_samples'"),
        ("[labels]\nold = 7", "version 7, which is not in the folder"),
        ("[splits]", "'split'"),
    ],
)
def test_traffic_is_looked_at_as_a_load_does(tmp_path: Path, text: str, told: str) -> None:
    traffic(text)(tmp_path)
    (found,) = validate([tmp_path])
    assert (found.code, found.path) == ("traffic", "m/traffic.toml")
    assert told in found.message


def test_a_good_repository_has_no_findings(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    write_adder(root, "adder", 1)
    write_identity(root, "identity")
    assert validate([root]) == []


def test_a_config_is_held_against_the_onnx_file(tmp_path: Path) -> None:
    file(tmp_path, "m/1/model.onnx", adder_bytes(1))
    file(tmp_path, "m/config.pbtxt", "input [{ name: 'z' data_type: TYPE_FP32 dims: [1] }]")
    (found,) = validate([tmp_path])
    assert (found.code, found.severity) == ("model-file", "error")
    assert "'z'" in found.message


def test_files_are_looked_at_also_where_the_config_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: ModelConfig, files: ModelFiles) -> None:
        raise LoadFailed(f"{config.default_model_filename or files.version} is refused")

    monkeypatch.setattr(open_backend("onnxruntime"), "check_files", refuse, raising=False)
    file(tmp_path, "m/1/odd.onnx", adder_bytes(1))
    (found,) = validate([tmp_path])
    assert (found.code, found.message) == ("model-file", "odd.onnx is refused")


def test_no_model_code_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    file(tmp_path, "models/m/1/model.py", f"open({str(canary)!r}, 'w')")
    assert [each for each in validate([tmp_path / "models"]) if each.severity == "error"] == []
    assert not canary.exists()


def test_a_place_is_written_as_editors_read_it() -> None:
    found = Diagnostic("error", "c", "m/config.pbtxt", "what", line=3, column=7)
    assert found.place == "m/config.pbtxt:3:7"
    assert Diagnostic("error", "c", "m", "what").place == "m"


def test_tensors_that_are_only_named_are_left_to_the_backend(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.py").write_text("class TritonPythonModel: pass\n")
    (folder / "config.pbtxt").write_text("backend: 'python'\noutput [ { name: 'x' } ]\n")
    assert validate([tmp_path]) == []


STEP = """
platform: "ensemble"
ensemble_scheduling {{ step [ {{ model_name: "m" model_version: -1 {more}
  input_map {{ key: "x" value: "A" }} output_map {{ key: "y" value: "B" }} }} ] }}
"""


def test_several_folders_are_looked_at_as_one_server_would(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("a", "b", "c")]
    for root in roots[:2]:
        root.mkdir()
        write_adder(root, "m", 1)
        file(root, "e/config.pbtxt", STEP.format(more=""))
        (root / "e" / "1").mkdir()
    file(roots[2], "torn/config.pbtxt", STEP.format(more=""))
    file(roots[2], "torn/1/x")
    named = STEP.format(more=f'model_namespace: "{roots[1]}"')
    file(roots[2], "named/config.pbtxt", named)
    file(roots[2], "named/1/x")
    (found,) = validate(roots, is_namespaced=True)
    assert (found.code, found.path) == ("step-ambiguous", f"{roots[2]}/torn/config.pbtxt")
    codes = {each.code for each in validate(roots)}
    assert codes == {"folder-unusable", "field-unread"}


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("model.joblib", "x", "'model.joblib' is a pickle"),
        ("MLmodel", "flavors: {python_function: {loader_module: wolf}}", "loader_module 'wolf'"),
    ],
)
def test_pickles_and_code_are_refused_as_by_a_load(
    tmp_path: Path, name: str, content: str, text: str
) -> None:
    file(tmp_path, f"m/1/{name}", content)

    errors = [each for each in validate([tmp_path]) if each.severity == "error"]

    assert [each.code for each in errors] == ["model-file"]
    assert text in errors[0].message
    assert "--allow-pickle m," in errors[0].message
    assert not any(
        each.severity == "error" for each in validate([tmp_path], allowed=Allowed(frozenset({"m"})))
    )
