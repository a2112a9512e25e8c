"""Warm-up batches of a config's `model_warmup`: every instance runs them before it serves."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    DataType,
    Instance,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Parameters,
    ServingError,
    Tensor,
)
from trivet.protos.model_config_pb2 import ModelConfig, ModelWarmup
from trivet.server.scheduling.joining import MakeBatch
from trivet.server.scheduling.ragged import Ragged
from trivet.server.scheduling.sequences.plan import SequencePlan

log = logging.getLogger(__name__)


class _NullSender:
    """Where a decoupled model's warm-up responses go."""

    def send(
        self, outputs: list[Tensor], *, final: bool = False, parameters: Parameters | None = None
    ) -> None:
        """Drops the response."""

    def finish(self) -> None:
        """Nothing waits."""

    def fail(self, error: ServingError) -> None:
        """A warm-up that fails fails the load."""
        raise error


def warm(
    instance: Instance,
    config: ModelConfig,
    files: ModelFiles,
    sequences: SequencePlan | None = None,
) -> None:
    """Runs all warm-up samples through an instance. Raises a ServingError when one fails."""
    for batch in warmup_batches(config, files, sequences):
        _run(instance, batch, config.name)


def _run(instance: Instance, batch: Batch, model_name: str) -> None:
    # Without what an error comes from: to compute is not to read files, so no disk is at fault.
    try:
        instance.execute(batch)
    except ServingError as error:
        raise error from None
    except Exception:
        log.exception("the warm-up of model '%s' failed", model_name)
        raise LoadFailed(
            f"the warm-up of model '{model_name}' failed; the server log has the details"
        ) from None
    for failure in batch.errors.values():
        raise failure from None


def warmup_batches(
    config: ModelConfig, files: ModelFiles, sequences: SequencePlan | None = None
) -> Iterator[Batch]:
    """A batch for each sample, as often as its `count` says (at least once).

    For a model with sequences a sample's rows are requests of their own, each a whole sequence.
    """
    ragged = Ragged.from_config(config)
    make_batch: MakeBatch = ragged.batch if ragged is not None else Batch
    for sample in config.model_warmup:
        for _ in range(max(1, sample.count)):
            batch_size = max(1, sample.batch_size)
            if sequences is None:
                requests = [_request(config, sample, files, batch_size)]
            else:
                requests = [
                    sequences.whole(_request(config, sample, files, 1), number)
                    for number in range(1, batch_size + 1)
                ]
            senders = [_NullSender() for _ in requests if _is_decoupled(config)]
            yield make_batch(requests, batching=config.max_batch_size > 0, senders=senders)


def _is_decoupled(config: ModelConfig) -> bool:
    return config.model_transaction_policy.decoupled


def _request(
    config: ModelConfig, sample: ModelWarmup, files: ModelFiles, batch_size: int
) -> CheckedRequest:
    head = (batch_size,) if config.max_batch_size > 0 else ()
    inputs = {
        name: Tensor.of(name, _values(name, value, head, files))
        for name, value in sample.inputs.items()
    }
    return CheckedRequest(
        config.name, files.version, f"warmup-{sample.name}", inputs, batch_size=batch_size
    )


def _values(
    name: str, value: ModelWarmup.Input, head: tuple[int, ...], files: ModelFiles
) -> np.ndarray:
    datatype = DataType.from_config(value.data_type)
    shape = head + tuple(value.dims)
    if value.HasField("input_data_file"):
        return _from_file(name, value.input_data_file, datatype, shape, files)
    if datatype is DataType.BYTES:
        return np.full(shape, b"", dtype=object)
    if value.random_data:
        # Any bits are a value of an integer type; floats stay in [0, 1).
        random = np.random.default_rng(0)
        if np.issubdtype(datatype.dtype, np.integer):
            return random.integers(0, 128, shape).astype(datatype.dtype)
        return random.random(shape).astype(datatype.dtype)
    return np.zeros(shape, dtype=datatype.dtype)


def _from_file(
    name: str, filename: str, datatype: DataType, shape: tuple[int, ...], files: ModelFiles
) -> np.ndarray:
    folder = files.model_dir / "warmup"
    raw = Path(files.inside(folder, filename)).read_bytes()
    try:
        return Tensor.from_raw(name, datatype, shape, raw).numpy()
    except ValueError as error:
        raise InvalidConfig(
            f"model_warmup input '{name}': file 'warmup/{filename}' of {len(raw)} bytes does not "
            f"hold a {datatype.value} tensor of shape {list(shape)}: {error}"
        ) from None
