"""The backend word "encoder": encoders of Hugging Face, as their folders lie."""

from trivet.backends.api import (
    DataType,
    Instance,
    InvalidConfig,
    ModelFiles,
    Placement,
    parameter,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.encoder import EncoderInfo, Task
from trivet.backends.encoder.about import ABOUT, TOKENIZER
from trivet.backends.encoder.apart import ApartEncoder
from trivet.backends.encoder.computing import Body
from trivet.backends.encoder.folder import Folder, read_folder
from trivet.backends.encoder.heads import head_of, outputs_of
from trivet.backends.encoder.instance import EncoderInstance, most_text_bytes
from trivet.backends.encoder.lengths import IDS, PAIR, TEXT
from trivet.backends.encoder.sharing import (
    Shared,
    key_of,
    of_one_instance,
    with_all_threads,
)
from trivet.backends.encoder.tokens import FolderTokenizer
from trivet.backends.encoder.turns import InOneThread
from trivet.backends.hugging_face.folder import compute_of, dtype_name, lacking, number_of
from trivet.backends.hugging_face.gpus import can_use_gpus
from trivet.backends.process import Isolation, isolation_of, open_isolated
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

MAX_ROWS = 1024
"""Of a request: they are computed in parts that fit the token budget."""
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 512, 16_384
"""A CPU is busy with few tokens already, and each more is padding or somebody's wait."""


class EncoderBackend:
    """Knows version folders that transformers or sentence-transformers have written."""

    def __init__(self) -> None:
        self._bodies: Shared[Body] = Shared()
        self._tokenizers: Shared[FolderTokenizer] = Shared()

    def can_use_gpus(self) -> bool:
        """See UsesGpus."""
        return can_use_gpus()

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Inputs, outputs and limits come from the folder's JSON. Raises InvalidConfig."""
        folder = read_folder(files.version_dir, files.name)
        info = _info(config, folder, is_gpu=False)
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

    def placed(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """See KnowsPlacement: on a GPU batches are larger, and weights may be halved."""
        groups = config.instance_group
        if all(group.kind != ModelInstanceGroup.KIND_GPU for group in groups):
            return config
        _info(config, read_folder(files.version_dir, files.name), is_gpu=True).write(config)
        return config

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """See ChecksFiles: the tokenizer is read without the model, too. Raises LoadFailed."""
        folder = read_folder(files.version_dir, files.name)
        self._tokenizer(folder, _info(config, folder, is_gpu=False))

    def starts_processes(self, config: ModelConfig) -> bool:
        """See StartsProcesses."""
        return isolation_of(config, ABOUT) is Isolation.PROCESS

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Raises LoadFailed, InvalidConfig."""
        if self.starts_processes(config):
            alone = of_one_instance(config)
            return open_isolated(ABOUT.word, alone, files, placement, kind=ApartEncoder)
        folder = read_folder(files.version_dir, files.name)
        info = _info(config, folder, is_gpu=placement.kind == "KIND_GPU")
        tokenizer = self._tokenizer(folder, info)
        body = self._body(config, folder, placement)
        head = body.turns.take(lambda: head_of(folder, body, tokenizer))
        return EncoderInstance(folder, info, tokenizer, body, head)

    def _tokenizer(self, folder: Folder, info: EncoderInfo) -> FolderTokenizer:
        path, lowers = folder.path / TOKENIZER, folder.lowers
        tokenizer = self._tokenizers.get(
            key_of(folder.path, lowers), lambda: FolderTokenizer(path, lowers=lowers)
        )
        tokenizer.check(info.vocabulary_size)
        return tokenizer

    def _body(self, config: ModelConfig, folder: Folder, placement: Placement) -> Body:
        compute, dtype = compute_of(config, folder.path, folder.onnx), parameter(config, "dtype")
        placed = with_all_threads(placement, config)
        # Of a GPU each instance has its own.
        own = placement.name if placement.kind == "KIND_GPU" else ""
        key = key_of(folder.path, compute, dtype, placed.cpu_threads, own)
        try:
            return self._bodies.get(key, lambda: _open(compute, folder, placed, dtype))
        except ModuleNotFoundError as error:
            raise lacking(ABOUT, error) from error


def _open(compute: str, folder: Folder, placement: Placement, dtype: str) -> Body:
    if compute == "onnx":
        from trivet.backends.encoder.onnx_body import OnnxBody

        assert folder.onnx is not None, "checked by compute_of"
        return OnnxBody(folder, folder.onnx, placement)
    from trivet.backends.encoder.torch_body import TorchBody

    turns = InOneThread()
    return turns.take(lambda: TorchBody(folder, placement, dtype, turns))


def _info(config: ModelConfig, folder: Folder, *, is_gpu: bool) -> EncoderInfo:
    max_tokens = min(number_of(config, "max_tokens", folder.max_tokens), folder.max_tokens)
    usual_batch = GPU_BATCH_TOKENS if is_gpu else CPU_BATCH_TOKENS
    dtype = parameter(config, "dtype")
    if compute_of(config, folder.path, folder.onnx) == "torch":
        dtype = dtype_name(folder.config, dtype, is_gpu=is_gpu)
    return EncoderInfo(
        folder.task,
        max_tokens,
        number_of(config, "max_text_bytes", most_text_bytes(max_tokens)),
        number_of(config, "max_batch_tokens", usual_batch),
        folder.vocabulary_size,
        dtype or "float32",
        folder.architecture,
        parameter(config, "truncate") == "true",
        folder.pooling if folder.task is Task.EMBED else "",
        folder.vector_size if folder.task is Task.EMBED else 0,
        folder.labels,
        folder.activation if folder.labels else "",
        tuple(folder.prompts.by_name),
    )


BACKEND = EncoderBackend()
