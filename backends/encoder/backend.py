"""The backend word "encoder": encoders of Hugging Face, as their folders lie."""

from importlib import import_module
from pathlib import Path

from trivet.backends.api import (
    DataType,
    Instance,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    parameter,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.encoder import EncoderInfo, Task
from trivet.backends.encoder.about import ABOUT, TOKENIZER
from trivet.backends.encoder.computing import Body
from trivet.backends.encoder.folder import Folder, read_folder
from trivet.backends.encoder.heads import head_of, outputs_of
from trivet.backends.encoder.instance import IDS, PAIR, TEXT, EncoderInstance, most_text_bytes
from trivet.backends.encoder.tokens import FolderTokenizer
from trivet.protos.model_config_pb2 import ModelConfig

MAX_ROWS = 1024
"""Of a request: they are computed in parts that fit the token budget."""
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 512, 16_384
"""A CPU is busy with few tokens already, and each more is padding or somebody's wait."""
_COMPUTES = ("torch", "onnx")


class EncoderBackend:
    """Knows version folders that transformers or sentence-transformers have written."""

    def can_use_gpus(self) -> bool:
        """See UsesGpus."""
        try:
            import_module("torch")
        except ModuleNotFoundError:
            return False
        from trivet.backends.encoder.torch_body import can_use_gpus

        return can_use_gpus()

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Inputs, outputs and limits come from the folder's JSON. Raises InvalidConfig."""
        folder = read_folder(files.version_dir, files.name)
        _compute(config, folder)
        info = _info(config, folder, CPU_BATCH_TOKENS)
        if config.WhichOneof("scheduling_choice") not in (None, "dynamic_batching"):
            raise InvalidConfig(
                f"model '{config.name}': an encoder batches its texts by dynamic_batching; leave "
                "other schedulers out"
            )
        completed = ModelConfig()
        completed.CopyFrom(config)
        completed.max_batch_size = config.max_batch_size or MAX_ROWS
        inputs = [
            ModelTensor(TEXT, DataType.BYTES, (-1, 1), optional=True),
            ModelTensor(IDS, DataType.INT64, (-1, -1), optional=True),
        ]
        if folder.task is not Task.EMBED:
            inputs.append(ModelTensor(PAIR, DataType.BYTES, (-1, 1), optional=True))
        if not completed.input:
            for each in inputs:
                completed.input.add(name=each.name, optional=True)
        outputs = [
            ModelTensor(name, datatype, (-1, *dims))
            for name, datatype, dims in outputs_of(folder.task, info)
        ]
        completed = complete_config(completed, inputs, outputs)
        info.write(completed)
        return completed

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Raises LoadFailed, InvalidConfig."""
        folder = read_folder(files.version_dir, files.name)
        body = _body(config, folder, placement)
        tokenizer = FolderTokenizer(folder.path / TOKENIZER, lowers=folder.lowers)
        is_gpu = placement.kind == "KIND_GPU"
        info = _info(config, folder, GPU_BATCH_TOKENS if is_gpu else CPU_BATCH_TOKENS)
        return EncoderInstance(folder, info, tokenizer, body, head_of(folder, body, tokenizer))


def _info(config: ModelConfig, folder: Folder, batch_tokens: int) -> EncoderInfo:
    max_tokens = min(_number(config, "max_tokens", folder.max_tokens), folder.max_tokens)
    return EncoderInfo(
        folder.task,
        max_tokens,
        _number(config, "max_text_bytes", most_text_bytes(max_tokens)),
        _number(config, "max_batch_tokens", batch_tokens),
        int(folder.config.get("vocab_size") or 0),
        parameter(config, "dtype", "float32"),
        folder.architecture,
        parameter(config, "truncate") == "true",
        folder.pooling if folder.task is Task.EMBED else "",
        folder.vector_size if folder.task is Task.EMBED else 0,
        folder.labels,
        folder.activation if folder.labels else "",
        tuple(folder.prompts.by_name),
    )


def _number(config: ModelConfig, name: str, usual: int) -> int:
    text = parameter(config, name)
    if not text:
        return usual
    if not text.isdecimal() or int(text) < 1:
        raise InvalidConfig(
            f"model '{config.name}': parameter {name} is '{text}'; it must be a number from 1 on"
        )
    return int(text)


def _compute(config: ModelConfig, folder: Folder) -> str:
    """What computes it: what the config says, or else torch where there are weights for it."""
    given = parameter(config, "compute") or ("torch" if folder.has_weights else "onnx")
    if given not in _COMPUTES:
        raise InvalidConfig(
            f"model '{config.name}': parameter compute is '{given}'; it may be "
            f"{' or '.join(_COMPUTES)}"
        )
    if given == "onnx" and folder.onnx is None:
        raise InvalidConfig(
            f"model '{config.name}': the folder has no model.onnx, at the top or in onnx/; "
            "without one leave out the parameter compute"
        )
    if given == "torch" and not folder.has_weights:
        raise InvalidConfig(
            f"model '{config.name}': the folder has no .safetensors for torch; set the parameter "
            "compute to onnx, or leave it out"
        )
    return given


def _body(config: ModelConfig, folder: Folder, placement: Placement) -> Body:
    compute = _compute(config, folder)
    try:
        if compute == "onnx":
            from trivet.backends.encoder.onnx_body import OnnxBody

            assert folder.onnx is not None, "checked above"
            return OnnxBody(folder, Path(folder.onnx), placement)
        from trivet.backends.encoder.torch_body import TorchBody

        return TorchBody(folder, placement, parameter(config, "dtype"))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        fix = ABOUT.install if package in ABOUT.packages else package
        raise LoadFailed(
            f"backend '{ABOUT.word}' needs the package '{package}', which is not installed: "
            f"pip install {fix}"
        ) from error


BACKEND = EncoderBackend()
