"""Models as the registry has them, over any executor."""

from collections.abc import Mapping, Sequence

from trivet.backends.api import Executor, ServingError, Signature, Sink
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.model import Model
from trivet.server.scheduling.reshape import Reshape
from trivet.server.scheduling.statistics import ModelStatistics


class NoExecutor:
    """Of a model that no test asks."""

    def submit(self, request: object, sink: Sink) -> None:
        sink.fail(ServingError("nobody computes here"))

    async def drain(self) -> None:
        """Has nothing under way."""

    async def close(self) -> None:
        """Owns nothing."""

    def is_ready(self) -> bool:
        return True


def made_model(
    name: str,
    signature: Signature,
    executor: Executor | None = None,
    *,
    version: int = 1,
    config: ModelConfig | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    namespace: str = "",
) -> Model:
    """A version that serves."""
    return Model(
        name,
        version,
        config or ModelConfig(name=name),
        signature,
        executor or NoExecutor(),
        ModelStatistics(name, version),
        None,
        labels or {},
        Reshape.of(signature),
        namespace=namespace,
    )
