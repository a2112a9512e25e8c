"""Opens ONNX models with ONNX Runtime and reads what their files say about themselves."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from trivet.backends.api import (
    DataType,
    DeviceLost,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Signature,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.content import describe_content
from trivet.backends.api.protobuf_file import MalformedMessage
from trivet.backends.api.supplied import instance_config
from trivet.backends.device.buckets import buckets_of
from trivet.backends.device.cuda import open_gpu
from trivet.backends.device.driver import Gpu
from trivet.backends.device.errors import DeviceFailed, as_load_failure
from trivet.backends.device.gpus import new_lane
from trivet.backends.onnxruntime.about import ABOUT, CLASSES
from trivet.backends.onnxruntime.gpu_instance import GpuOnnxInstance
from trivet.backends.onnxruntime.instance import OnnxRuntimeInstance
from trivet.backends.onnxruntime.modelfile import OnnxFile, read_onnx_file
from trivet.backends.onnxruntime.options import SessionPlan, plan_session
from trivet.backends.onnxruntime.sessions import Sessions
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

(DEFAULT_FILENAME,) = ABOUT.model_files


class OnnxRuntimeBackend:
    """`backend: "onnxruntime"`: model.onnx, or a folder of that name with model.onnx in it."""

    def __init__(self, gpu_of: Callable[[int], Gpu] = open_gpu) -> None:
        self._gpu_of = gpu_of
        self._sessions = Sessions()

    def can_use_gpus(self) -> bool:
        return "CUDAExecutionProvider" in ort.get_available_providers()

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig for a config, LoadFailed for a file that is wrong."""
        path = _artifact(config, files)
        found = _read(config, files, path)
        if any(tensor.shape is None for tensor in found.outputs):
            found.outputs = self._inferred_outputs(config, files, path, found)
        _check_supported(config, found)
        completed = complete_config(config, found.inputs, found.outputs)
        _name_classes(completed, found)
        return completed

    def open(
        self, config: ModelConfig, files: ModelFiles, placement: Placement
    ) -> OnnxRuntimeInstance | GpuOnnxInstance:
        """Raises LoadFailed, InvalidConfig."""
        path = _artifact(config, files)
        # Without auto-completion nobody has compared the config with the file yet.
        self.complete(config, files)
        plan = plan_session(config, files, placement)
        signature = Signature.from_config(instance_config(config))
        specs = (*signature.inputs.values(), *signature.outputs.values())
        # ONNX Runtime binds no texts; it brings what else such a model needs to the GPU by itself.
        has_texts = any(spec.datatype is DataType.BYTES for spec in specs)
        if plan.is_on_gpu and not has_texts:
            return self._open_on_gpu(config, path, plan, signature, placement)
        session = self._sessions.get(path, plan)
        return OnnxRuntimeInstance(session, signature, plan.run_options())

    def _open_on_gpu(
        self,
        config: ModelConfig,
        path: Path,
        plan: SessionPlan,
        signature: Signature,
        placement: Placement,
    ) -> GpuOnnxInstance:
        try:
            lane = new_lane(self._gpu_of(placement.device_id), config)
            shapes = {n: signature.full_dims(spec) for n, spec in signature.inputs.items()}
            buckets = buckets_of(config, shapes)
            plan = plan.on_stream(lane.stream.handle, captures=bool(buckets))
            session = self._sessions.get(path, plan)
            return GpuOnnxInstance(session, signature, lane, buckets, plan.run_options())
        except LoadFailed as error:
            raise LoadFailed(f"model '{config.name}': {error.message}") from error
        except (DeviceFailed, DeviceLost) as error:
            raise as_load_failure(config.name, error) from error

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


def _name_classes(config: ModelConfig, found: OnnxFile) -> None:
    """Says in the config what the columns of probabilities stand for."""
    for name, classes in found.maps.classes.items():
        key = CLASSES if len(found.maps.classes) == 1 else f"{CLASSES}.{name}"
        if key not in config.parameters:
            text = json.dumps(classes, ensure_ascii=False)
            config.parameters[key].string_value = text


def _known(shape: list[int | str | None]) -> tuple[int, ...] | None:
    """ONNX Runtime says [] for an unknown rank too."""
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape) or None


def _artifact(config: ModelConfig, files: ModelFiles) -> Path:
    path = files.artifact(config, DEFAULT_FILENAME)
    return files.inside(path, DEFAULT_FILENAME) if path.is_dir() else path


def _read(config: ModelConfig, files: ModelFiles, path: Path) -> OnnxFile:
    try:
        found = read_onnx_file(path)
    except MalformedMessage as error:
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
