"""Opens models with OpenVINO and reads what their files say about themselves."""

from pathlib import Path

import openvino as ov

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement, Signature
from trivet.backends.api.completion import complete_config
from trivet.backends.api.content import describe_content
from trivet.backends.api.supplied import instance_config
from trivet.backends.openvino.about import ABOUT
from trivet.backends.openvino.graph import fix_rows, last_line, make_batchable, take_dims, tensors
from trivet.backends.openvino.instance import OpenVinoInstance
from trivet.backends.openvino.options import check_device, fixed_rows, flag, properties
from trivet.protos.model_config_pb2 import ModelConfig

_IR_FILE = ABOUT.model_files[0]
_VERSION = ov.__version__.partition("-")[0]


class OpenVinoBackend:
    """`backend: "openvino"`: model.xml with model.bin beside it, or model.onnx."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig for a config, LoadFailed for a file that is wrong."""
        _, model = _read(config, files)
        is_fixed = fixed_rows(config) > 0
        return complete_config(config, *tensors(config, model, has_fixed_rows=is_fixed))

    def open(
        self, config: ModelConfig, files: ModelFiles, placement: Placement
    ) -> OpenVinoInstance:
        """Raises LoadFailed, InvalidConfig."""
        core, model = _read(config, files)
        rows = fixed_rows(config)
        inputs, outputs = tensors(config, model, has_fixed_rows=rows > 0)
        # Without auto-completion nobody has compared the config with the file yet.
        complete_config(config, inputs, outputs)
        if placement.kind == "KIND_GPU":
            raise InvalidConfig(
                f"model '{config.name}': backend 'openvino' computes on the CPU; use KIND_CPU in "
                "instance_group"
            )
        try:
            compiled = core.compile_model(model, "CPU", properties(config, placement))
        except RuntimeError as error:
            raise LoadFailed(
                f"model '{config.name}': OpenVINO {_VERSION} cannot compile the model: "
                f"{last_line(error)}"
            ) from error
        signature = Signature.from_config(instance_config(config))
        return OpenVinoInstance(
            compiled, signature, [t.name for t in inputs], [t.name for t in outputs], rows
        )


def _read(config: ModelConfig, files: ModelFiles) -> tuple[ov.Core, ov.Model]:
    """The model in the shapes that the config asks for."""
    check_device(config)
    path = _artifact(config, files)
    where = f"model '{config.name}' version {files.version}"
    core = ov.Core()
    # A file that is replaced in place would change, or end, what is being served.
    core.set_property({"ENABLE_MMAP": False})
    for name in config.model_operations.op_library_filename:
        _add_library(core, config, files, name)
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise LoadFailed(f"{where}: {_why(path, error)}") from error
    rows = fixed_rows(config)
    if flag(config, "RESHAPE_IO_LAYERS"):
        take_dims(config, model)
    elif not rows:
        make_batchable(config, model)
    if rows:
        fix_rows(config, model, rows)
    return core, model


def _artifact(config: ModelConfig, files: ModelFiles) -> Path:
    names = (_IR_FILE, *ABOUT.shared_names)
    there = [name for name in names if (files.version_dir / name).exists()]
    return files.artifact(config, there[0] if there else _IR_FILE)


def _add_library(core: ov.Core, config: ModelConfig, files: ModelFiles, name: str) -> None:
    in_version = (files.version_dir / name).exists()
    path = files.inside(files.version_dir if in_version else files.model_dir, name)
    try:
        core.add_extension(str(path))
    except RuntimeError as error:
        raise LoadFailed(
            f"model '{config.name}': '{name}' (model_operations.op_library_filename) is no library "
            f"of operations for OpenVINO {_VERSION}: {last_line(error)}"
        ) from error


def _why(path: Path, error: RuntimeError) -> str:
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and not weights.exists():
        return f"the weights of '{path.name}' are missing; put '{weights.name}' beside it"
    if path.suffix == ".xml" and "Incorrect weights" in str(error):
        return (
            f"'{weights.name}' is shorter than '{path.name}' says ({weights.stat().st_size} "
            "bytes); copy both files again"
        )
    what = "is cut off or damaged" if _begins_as_ir(path) else f"is {describe_content(path)}"
    return (
        f"OpenVINO {_VERSION} cannot read '{path.name}', which {what}: "
        f"{last_line(error).replace(str(path), path.name)}. Copy it again"
    )


def _begins_as_ir(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<net" in file.read(512)


BACKEND = OpenVinoBackend()
