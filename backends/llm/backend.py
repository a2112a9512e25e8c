"""The backend word "llm": language models on our own engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import (
    BackendFailed,
    Batch,
    Executor,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Observer,
    Placement,
    parameter,
)
from trivet.backends.api.about import SERVER_PARAMETERS, is_among
from trivet.backends.api.adapting import ADAPTERS
from trivet.backends.generating.tensor_form import with_tensors
from trivet.backends.llm.about import ABOUT
from trivet.backends.llm.checking import check_model
from trivet.backends.llm.process.process import StartedEngine
from trivet.backends.llm.process.starting import begin_engine
from trivet.backends.llm.serving.executor import LlmExecutor
from trivet.backends.llm.serving.images import ImageReader
from trivet.backends.llm.settings import (
    EngineSettings,
    engine_settings,
    find_model,
    placed,
)
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.image_layout import ImageLayout, read_layout
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.documents import load_tokenizer_files
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup


class LlmBackend:
    """Knows version folders with a .gguf file, or a Hugging Face model with safetensors."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """The tensors are the same for all. Raises InvalidConfig."""
        _refuse_unknown(config)
        engine_settings(config, files)
        if config.max_batch_size:
            raise InvalidConfig(
                f"max_batch_size is {config.max_batch_size}; an llm model forms its batches itself "
                "and takes one prompt a request: leave it out"
            )
        completed = with_tensors(config)
        del completed.instance_group[:]
        completed.instance_group.append(_group(config))
        return completed

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """See ChecksFiles: all but the weights is read without an engine. Raises LoadFailed."""
        path = find_model(config, files)
        _Texts.read(path)
        check_model(path)

    def starts_processes(self, config: ModelConfig) -> bool:  # noqa: ARG002
        """See StartsProcesses: the engine is one."""
        return True

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> "LlmInstance":
        """Starts the engine and waits for its model. Raises LoadFailed."""
        settings = placed(engine_settings(config, files), placement)
        path = find_model(config, files)
        starting = begin_engine(files.name, settings)
        try:
            # Meanwhile. Where it cannot be read, nobody waits for the weights.
            texts = _Texts.read(path)
            engine = starting.wait()
            images = _image_reader(texts.layout, settings)
        except BaseException:
            starting.kill()
            raise
        return LlmInstance(files, engine, settings, texts.tokenizer, texts.template, images)


@dataclass(frozen=True, slots=True)
class _Texts:
    """What makes tokens of texts, chats and images."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    layout: ImageLayout | None

    @classmethod
    def read(cls, path: Path) -> "_Texts":
        """Of a model's folder or GGUF file. Raises LoadFailed."""
        files = load_tokenizer_files(path)
        tokenizer = Tokenizer.from_files(files)
        layout = read_layout(path) if path.is_dir() else None
        template = None
        if files.chat_template:
            template = ChatTemplate(
                files.chat_template,
                files.special_texts,
                tokenizer.special_texts + (layout.control_texts if layout else ()),
                files.tool_template,
                layout.image_token if layout else "",
            )
        return cls(tokenizer, template, layout)


def _image_reader(layout: ImageLayout | None, settings: EngineSettings) -> ImageReader | None:
    """Raises LoadFailed."""
    if layout is None:
        return None
    try:
        return ImageReader(layout, settings.image_bounds, settings.max_images)
    except ImportError as error:
        raise LoadFailed(
            "the model reads images, and Pillow, which decodes them, is missing: "
            "pip install 'trivet[llm-transformers]'"
        ) from error


def _refuse_unknown(config: ModelConfig) -> None:
    """What users of other servers write here (a limit, an adapter) would else have no effect and no
    trace."""
    for name in config.parameters:
        if not is_among(name, SERVER_PARAMETERS) and not ABOUT.takes_parameter(name):
            raise InvalidConfig(
                f"parameter '{name}' is not known to backend 'llm': {ABOUT.likely_parameter(name)}"
            )


def _group(config: ModelConfig) -> ModelInstanceGroup:
    """One engine where the config's first group says; KIND_MODEL: the engine chooses."""
    if "," in (uuids := parameter(config, "gpu_uuids")):
        raise InvalidConfig(
            f"parameter 'gpu_uuids' is '{uuids}'; a language model takes one. For several GPUs "
            "give it tensor_parallel_size or pipeline_parallel_size and the number of the first in "
            "instance_group.gpus"
        )
    if uuids:
        return ModelInstanceGroup(count=1, kind="KIND_GPU", gpus=[0])
    if not config.instance_group:
        return ModelInstanceGroup(count=1, kind="KIND_MODEL")
    given = config.instance_group[0]
    if len(given.gpus) > 1:
        raise InvalidConfig(
            f"instance_group names {len(given.gpus)} GPUs, {list(given.gpus)}; name the first: the "
            "model parameters tensor_parallel_size and pipeline_parallel_size say how many from "
            "there on compute the model"
        )
    if given.kind == ModelInstanceGroup.KIND_GPU or given.gpus:
        return ModelInstanceGroup(count=1, kind="KIND_GPU", gpus=given.gpus or [0])
    is_cpu = given.kind == ModelInstanceGroup.KIND_CPU
    return ModelInstanceGroup(count=1, kind="KIND_CPU" if is_cpu else "KIND_MODEL")


class LlmInstance:
    """A started engine. It decides itself when to run what, so it brings its own executor."""

    def __init__(
        self,
        files: ModelFiles,
        engine: StartedEngine,
        settings: EngineSettings,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        images: ImageReader | None,
    ) -> None:
        self._files = files
        self._images = images
        self._engine = engine
        self._settings = settings
        self._tokenizer = tokenizer
        self._template = template
        self._observer: Observer | None = None

    def observe(self, observer: Observer) -> None:
        """Called before `make_executor`: who is told what the engine's own counters do not say."""
        self._observer = observer

    def make_executor(self) -> Executor:
        """Called on the event loop; from then on the executor owns the engine."""
        return LlmExecutor(
            self._files.name,
            self._files.version,
            self._engine,
            self._settings,
            self._tokenizer,
            self._template,
            self._observer,
            None if self._files.lone else self._files.model_dir / ADAPTERS,
            self._images,
        )

    def execute(self, batch: Batch) -> None:
        """Never called: see `make_executor`."""
        raise BackendFailed(f"an llm model does not take batches; {batch.size} items came in one")

    def take_engine(self) -> StartedEngine:
        """See HasEngine: the texts are of no use to one that has them."""
        if self._images is not None:
            self._images.close()
        return self._engine

    def memory_bytes(self) -> Mapping[int | None, int]:
        """See ReportsMemory: a cache in host memory takes it as it fills."""
        return {None: self._engine.memory_bytes() + int(self._engine.info["host_cache_bytes"])}

    def is_ready(self) -> bool:
        """Whether the engine runs."""
        return self._engine.is_running()

    def close(self) -> None:
        """Ends an engine that was never served."""
        if self._images is not None:
            self._images.close()
        self._engine.kill()


BACKEND = LlmBackend()
