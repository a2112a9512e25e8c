"""Opens .tflite files with LiteRT and reads what they say about themselves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trivet.backends.api import (
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    Signature,
    parameter,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.content import describe_content
from trivet.backends.api.supplied import instance_config
from trivet.backends.tflite.about import ABOUT
from trivet.backends.tflite.instance import TfLiteInstance
from trivet.backends.tflite.program import Program, open_program
from trivet.protos.model_config_pb2 import ModelConfig

_TRIED_BATCH = 2


class TfLiteBackend:
    """`backend: "tflite"`: model.tflite."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig for a config, LoadFailed for a file that is wrong."""
        program = _open(config, files, num_threads=1)
        return _completed(config, program)

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> TfLiteInstance:
        """Raises LoadFailed, InvalidConfig."""
        if placement.kind == "KIND_GPU":
            raise InvalidConfig(
                f"model '{config.name}': backend 'tflite' computes on the CPU; use KIND_CPU in "
                "instance_group"
            )
        program = _open(config, files, _num_threads(config, placement))
        # Without auto-completion nobody has compared the config with the file yet.
        _completed(config, program)
        return TfLiteInstance(program, Signature.from_config(instance_config(config)))


def _completed(config: ModelConfig, program: Program) -> ModelConfig:
    inputs, outputs = program.inputs, program.outputs
    if config.max_batch_size > 0 and _has_one_row((*inputs, *outputs)):
        inputs, outputs = _grown(config, program)
    return complete_config(config, inputs, outputs)


def _has_one_row(tensors: Sequence[ModelTensor]) -> bool:
    return all(tensor.shape is not None and tensor.shape[:1] == (1,) for tensor in tensors)


def _grown(
    config: ModelConfig, program: Program
) -> tuple[Sequence[ModelTensor], Sequence[ModelTensor]]:
    """Most files are converted with a batch of one, and most of these graphs take others. Only a
    config that asks for batches says that the first dimension is the batch's."""
    try:
        program.resize(_TRIED_BATCH)
    except (RuntimeError, ValueError) as error:
        raise InvalidConfig(
            f"model '{config.name}': max_batch_size is {config.max_batch_size}, but the model file "
            f"is made for batches of 1 and takes no others ({_first_line(error)}); set "
            "max_batch_size: 0, or convert it with a variable batch dimension"
        ) from error
    inputs, outputs = (
        [replace(tensor, shape=(-1, *(tensor.shape or ())[1:])) for tensor in tensors]
        for tensors in (program.inputs, program.outputs)
    )
    return inputs, outputs


def _open(config: ModelConfig, files: ModelFiles, num_threads: int) -> Program:
    path = files.artifact(config, ABOUT.model_files[0])
    where = f"model '{config.name}' version {files.version}"
    if not path.is_file():
        raise InvalidConfig(f"{where}: '{path.name}' is a folder, not a .tflite file")
    try:
        # Not mapped: a file that is replaced in place would change, or end, what is being served.
        content = path.read_bytes()
        return open_program(config.name, content, parameter(config, "signature"), num_threads)
    except ValueError as error:
        raise LoadFailed(
            f"{where}: '{path.name}' is not a whole .tflite file ({_first_line(error)}); it is "
            f"{describe_content(path)}"
        ) from error
    except RuntimeError as error:
        raise LoadFailed(f"{where}: {_why(path, error)}") from error


def _why(path: Path, error: RuntimeError) -> str:
    text = str(error)
    if "custom op" in text or "Flex" in text or "Select TensorFlow op" in text:
        return (
            f"'{path.name}' uses operations that LiteRT does not have ({_first_line(error)}); "
            "convert it with built-in operations only (OpsSet.TFLITE_BUILTINS), or serve its "
            "SavedModel as 1/model.savedmodel"
        )
    return f"LiteRT cannot run '{path.name}': {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")


def _num_threads(config: ModelConfig, placement: Placement) -> int:
    text = parameter(config, "tflite_num_threads") or str(max(1, placement.cpu_threads))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidConfig(
            f"model '{config.name}': parameter 'tflite_num_threads' must be a whole number from 1, "
            f"got '{text}'"
        )
    return int(text)


BACKEND = TfLiteBackend()
