"""Opens ONNX models with ONNX Runtime and reads what their files say about themselves."""

import logging
from pathlib import Path

import onnxruntime as ort

from trivet.backends.api import (
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Signature,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.content import describe_content
from trivet.backends.api.supplied import instance_config
from trivet.backends.onnxruntime.instance import OnnxRuntimeInstance
from trivet.backends.onnxruntime.modelfile import MalformedModel, OnnxFile, read_onnx_file
from trivet.backends.onnxruntime.options import plan_session
from trivet.backends.onnxruntime.sessions import Sessions
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

DEFAULT_FILENAME = "model.onnx"


class OnnxRuntimeBackend:
    """`backend: "onnxruntime"`: model.onnx, or a folder of that name with model.onnx in it."""

    def __init__(self) -> None:
        self._sessions = Sessions()

    def matches(self, files: ModelFiles) -> bool:
        return (files.version_dir / DEFAULT_FILENAME).exists()

    def can_use_gpus(self) -> bool:
        return "CUDAExecutionProvider" in ort.get_available_providers()

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig for a config, LoadFailed for a file that is wrong."""
        path = _artifact(config, files)
        found = _read(config, files, path)
        if any(tensor.shape is None for tensor in found.outputs):
            found.outputs = self._inferred_outputs(config, files, path, found)
        _check_supported(config, found)
        return complete_config(config, found.inputs, found.outputs)

    def open(
        self, config: ModelConfig, files: ModelFiles, placement: Placement
    ) -> OnnxRuntimeInstance:
        """Raises LoadFailed, InvalidConfig."""
        path = _artifact(config, files)
        # Without auto-completion nobody has compared the config with the file yet.
        self.complete(config, files)
        plan = plan_session(config, files, placement)
        session = self._sessions.get(path, plan)
        signature = Signature.from_config(instance_config(config))
        return OnnxRuntimeInstance(session, signature, plan.run_options())

    def _inferred_outputs(
        self, config: ModelConfig, files: ModelFiles, path: Path, found: OnnxFile
    ) -> list[ModelTensor]:
        """The outputs with the shapes that ONNX Runtime infers where the file has none."""
        plan = plan_session(config, files, Placement(config.name, "KIND_CPU", 0, 1))
        session = self._sessions.get(path, plan)
        inferred = {output.name: output.shape for output in session.get_outputs()}
        return [
            ModelTensor(
                t.name, t.datatype, _known(inferred[t.name]) if t.shape is None else t.shape
            )
            for t in found.outputs
        ]


def _known(shape: list[int | str | None]) -> tuple[int, ...] | None:
    """ONNX Runtime says [] for an unknown rank too."""
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape) or None


def _artifact(config: ModelConfig, files: ModelFiles) -> Path:
    path = files.artifact(config, DEFAULT_FILENAME)
    return files.inside(path, DEFAULT_FILENAME) if path.is_dir() else path


def _read(config: ModelConfig, files: ModelFiles, path: Path) -> OnnxFile:
    try:
        found = read_onnx_file(path)
    except MalformedModel as error:
        raise LoadFailed(
            f"model '{config.name}' version {files.version}: '{path.name}' is not an ONNX model "
            f"({error}); it is {describe_content(path)}"
        ) from error
    root = files.model_dir.resolve()
    for location in sorted(found.external_locations):
        data = (path.parent / location).resolve()
        if not data.is_relative_to(root) or Path(location).is_absolute():
            raise LoadFailed(
                f"model '{config.name}' version {files.version}: '{path.name}' keeps weights in "
                f"'{location}', outside the model's folder"
            )
        if not data.is_file():
            raise LoadFailed(
                f"model '{config.name}' version {files.version}: '{path.name}' keeps weights in "
                f"'{location}', which is missing; copy it beside the model file"
            )
    return found


def _check_supported(config: ModelConfig, found: OnnxFile) -> None:
    """Sequences, maps and rare types: refused as inputs or if asked for, else left out."""
    asked = {output.name for output in config.output}
    refused = [name for name in found.unsupported_outputs if name in asked or not found.outputs]
    for name in (*found.unsupported_inputs, *refused):
        raise InvalidConfig(
            f"model '{config.name}': '{name}' is no tensor of a supported type in the model file "
            "(a sequence, a map or a rare type); export the model without it (scikit-learn: "
            "zipmap=False)"
        )
    if found.unsupported_outputs and not asked:
        log.warning(
            "model '%s': left out the outputs %s, which are no tensors of a supported type",
            config.name,
            found.unsupported_outputs,
        )


BACKEND = OnnxRuntimeBackend()
