"""The backend word "ensemble": models whose instance is a graph over other models."""

from collections.abc import Sequence
from dataclasses import dataclass

from trivet.backends.api import (
    BackendFailed,
    Batch,
    Catalog,
    Executor,
    Instance,
    ModelFiles,
    ModelNotFound,
    ModelServer,
    Observer,
    Placement,
    Signature,
)
from trivet.ensembles.executor import EnsembleExecutor
from trivet.ensembles.generating import GeneratingEnsemble, find_ending
from trivet.ensembles.graph import Graph
from trivet.ensembles.reading import read_graph
from trivet.protos.model_config_pb2 import ModelConfig


class NoModels:
    """The catalog of a backend that has not been told which models serve."""

    def find(self, name: str, namespace: str = "") -> str:  # noqa: ARG002
        return name

    def signature(self, name: str, version: int | str | None) -> Signature:  # noqa: ARG002
        raise ModelNotFound(f"model '{name}' is not known here")

    def labels(self, name: str, version: int | str | None) -> dict[str, Sequence[str]]:  # noqa: ARG002
        raise ModelNotFound(f"model '{name}' is not known here")

    def parts(self, name: str) -> frozenset[str]:
        return frozenset({name})


@dataclass(frozen=True, slots=True)
class EnsembleBackend:
    """Reads graphs against the models that serve."""

    catalog: Catalog

    def composed(self, catalog: Catalog) -> "EnsembleBackend":
        """The backend over the models that serve."""
        return EnsembleBackend(catalog)

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:  # noqa: ARG002 - an ensemble has no files
        """Inputs and outputs from the steps; everything is checked. Raises InvalidConfig."""
        return read_graph(config, self.catalog).config

    def labels(self, config: ModelConfig) -> dict[str, Sequence[str]]:
        """Class labels that the outputs have from the steps which make them."""
        graph = read_graph(config, self.catalog)
        found: dict[str, Sequence[str]] = {}
        for name, edge in graph.outputs.items():
            step = graph.steps[graph.makers[edge.tensor][0]]
            made_as = next(out.name for out in step.outputs if out.tensor == edge.tensor)
            labels = self.catalog.labels(step.model, step.version).get(made_as)
            if labels:
                found[name] = labels
        return found

    def open(
        self,
        config: ModelConfig,
        files: ModelFiles,
        placement: Placement,  # noqa: ARG002
    ) -> Instance:
        return EnsembleInstance(read_graph(config, self.catalog), files.version)


class EnsembleInstance:
    """A graph. It asks other models, so it brings its own executor."""

    def __init__(self, graph: Graph, version: int) -> None:
        self.graph = graph
        self._version = version
        self._server: ModelServer | None = None
        self._observer: Observer | None = None

    def connect(self, server: ModelServer) -> None:
        self._server = server

    def observe(self, observer: Observer) -> None:
        self._observer = observer

    def make_executor(self) -> Executor:
        assert self._server is not None, "connected before"
        assert self._observer is not None, "observed before"
        place = (self._version, self.graph, self._server, self._observer)
        ending = find_ending(self.graph)
        if ending is not None and ending.generator(self._server) is not None:
            return GeneratingEnsemble(ending, *place)
        return EnsembleExecutor(*place)

    def execute(self, batch: Batch) -> None:
        """Never called: see `make_executor`."""
        raise BackendFailed(f"an ensemble takes no batches; {batch.size} items came in one")

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        """Holds nothing."""


BACKEND = EnsembleBackend(NoModels())
