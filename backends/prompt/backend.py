"""The backend for prompts: versions that are texts, on the engine of another model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.backends.api import (
    BackendFailed,
    Batch,
    Catalog,
    Executor,
    Instance,
    InvalidConfig,
    ModelFiles,
    ModelServer,
    Observer,
    Placement,
    ServingError,
    parameter,
)
from trivet.backends.prompt.about import PROMPT_FILE
from trivet.backends.prompt.executor import PromptExecutor
from trivet.backends.prompt.prompt_file import PromptFile, read_prompt_file
from trivet.backends.prompt.templates import PromptTemplates
from trivet.backends.prompt.tensors import with_variables
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

_TEXT_INPUT, _TEXT_OUTPUT = "text_input", "text_output"


@dataclass(frozen=True, slots=True)
class PromptBackend:
    """Reads prompts against the models that serve."""

    catalog: Catalog | None = None
    """None before it is told which those are."""

    def composed(self, catalog: Catalog) -> "PromptBackend":
        """See Composes."""
        return PromptBackend(catalog)

    def labels(self, config: ModelConfig) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """See ComposedBackend: texts have none."""
        return {}

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """The tensors are those of all models that generate text, and the variables. Raises
        InvalidConfig."""
        completed = self._complete(config, files)
        if self.catalog is not None:
            _check_base(read_prompt_file(files), self.catalog)
        return completed

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """See ChecksFiles: all but the base, of which only its name may be known."""
        self._complete(config, files)

    def _complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        file = PromptTemplates(read_prompt_file(files)).file
        if config.max_batch_size or config.instance_group:
            raise InvalidConfig(
                f"model '{config.name}' is a prompt: it computes nothing itself; leave out "
                "max_batch_size and instance_group, which are its base's"
            )
        if parameter(config, "isolation", "none") != "none":
            raise InvalidConfig("parameter 'isolation': a prompt runs in the server alone")
        completed = with_variables(config, file)
        completed.instance_group.append(ModelInstanceGroup(count=1, kind="KIND_CPU"))
        return completed

    def open(
        self,
        config: ModelConfig,  # noqa: ARG002
        files: ModelFiles,
        placement: Placement,  # noqa: ARG002
    ) -> Instance:
        """Raises InvalidConfig."""
        return PromptInstance(files, PromptTemplates(read_prompt_file(files)))


def _check_base(file: PromptFile, catalog: Catalog) -> None:
    """Whether the base is there and generates text. Raises InvalidConfig."""
    try:
        signature = catalog.signature(catalog.find(file.base), file.base_version)
    except ServingError as error:
        raise InvalidConfig(
            f"{PROMPT_FILE}: its base '{file.base}' does not serve: {error.message}"
        ) from None
    if _TEXT_INPUT not in signature.inputs or _TEXT_OUTPUT not in signature.outputs:
        raise InvalidConfig(
            f"{PROMPT_FILE}: its base '{file.base}' does not generate text; it takes "
            f"{', '.join(signature.inputs)} and gives {', '.join(signature.outputs)}"
        )


class PromptInstance:
    """Texts. It asks another model, so it brings its own executor."""

    def __init__(self, files: ModelFiles, templates: PromptTemplates) -> None:
        self._files = files
        self._templates = templates
        self._server: ModelServer | None = None
        self._observer: Observer | None = None

    def connect(self, server: ModelServer) -> None:
        """See AsksModels."""
        self._server = server

    def observe(self, observer: Observer) -> None:
        """See Observed."""
        self._observer = observer

    def make_executor(self) -> Executor:
        """See BringsExecutor."""
        assert self._server is not None, "connected before"
        assert self._observer is not None, "observed before"
        files = self._files
        return PromptExecutor(
            files.name, files.version, self._templates, self._server, self._observer
        )

    def execute(self, batch: Batch) -> None:
        """Never called: see `make_executor`."""
        raise BackendFailed(f"a prompt takes no batches; {batch.size} items came in one")

    def is_ready(self) -> bool:
        """Texts are."""
        return True

    def close(self) -> None:
        """Holds nothing."""


BACKEND = PromptBackend()
