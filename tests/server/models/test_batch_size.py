"""The largest batch of models that say none: from options, into configs, around parts."""

import pytest

from trivet.backends.api import About, DataType, InvalidConfig, Signature
from trivet.backends.api.completion import (
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_PARAMETER,
    ModelTensor,
    complete_config,
)
from trivet.backends.api.extent import Extent
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.batch_size import COMPUTE_BATCH_SIZE, DefaultBatchSizes
from trivet.server.settings import Settings

ONE = About(word="one", backend="", completes=frozenset({"max_batch_size"}))


def completed(config: ModelConfig, *, most: int | None = None) -> ModelConfig:
    """By a backend whose file limits a batch to `most` rows, of what a server tells it."""
    DefaultBatchSizes().ask(config, ONE)
    extents = (Extent(1, most),) if most else ()
    tensors = [ModelTensor("x", DataType.FP32, (-1, 4), extents=extents)]
    found = complete_config(config, tensors, tensors)
    DefaultBatchSizes().settle(config, found)
    return found


def parts_of(config: ModelConfig) -> int:
    return Signature.from_config(config).compute_batch_size


def test_the_option_s_default_is_that_of_backends() -> None:
    assert Settings().default_max_batch_size == DEFAULT_MAX_BATCH_SIZE


def test_triton_s_option_is_for_one_backend_or_all() -> None:
    sizes = DefaultBatchSizes.parse(
        1024, ["one,default-max-batch-size=8", "default-max-batch-size=16", "tensorflow,version=2"]
    )

    assert sizes == DefaultBatchSizes(16, {"one": 8})
    config = ModelConfig()
    sizes.ask(config, ONE)
    assert config.parameters[DEFAULT_PARAMETER].string_value == "8"


def test_backends_that_choose_no_batches_are_not_told() -> None:
    config = ModelConfig()

    DefaultBatchSizes().ask(config, About(word="two", backend=""))

    assert not config.parameters


@pytest.mark.parametrize("value", ["many", "-1", "", "4294967296"])
def test_a_wrong_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig, match="must be a number of rows"):
        DefaultBatchSizes.parse(1024, [f"default-max-batch-size={value}"])


def test_a_default_limit_is_of_requests_and_rows_are_computed_in_parts() -> None:
    config = completed(ModelConfig())

    assert DEFAULT_PARAMETER not in config.parameters
    assert (config.max_batch_size, parts_of(config)) == (1024, COMPUTE_BATCH_SIZE)


@pytest.mark.parametrize("size", [8, 1024])
def test_limits_of_a_config_are_of_batches(size: int) -> None:
    config = completed(ModelConfig(max_batch_size=size))

    assert (config.max_batch_size, parts_of(config)) == (size, size)
    assert DEFAULT_PARAMETER not in config.parameters


def test_limits_of_a_file_are_of_batches() -> None:
    config = completed(ModelConfig(), most=64)

    assert (config.max_batch_size, parts_of(config)) == (64, 64)


def test_what_code_chooses_is_no_default() -> None:
    given = ModelConfig()
    DefaultBatchSizes().ask(given, ONE)
    by_code = ModelConfig()
    by_code.CopyFrom(given)
    by_code.max_batch_size = 1024
    by_code.dynamic_batching.SetInParent()

    DefaultBatchSizes().settle(given, by_code)

    assert parts_of(by_code) == 1024


def test_sequences_keep_the_small_default() -> None:
    given = ModelConfig()
    given.sequence_batching.SetInParent()

    assert completed(given).max_batch_size == 4


def test_preferred_sizes_say_how_many_rows_are_computed() -> None:
    given = ModelConfig()
    given.dynamic_batching.preferred_batch_size.extend([4, 8])

    assert parts_of(completed(given)) == 8


@pytest.mark.parametrize("value", ["0", "9", "x"])
def test_a_wrong_part_is_refused_with_its_limit(value: str) -> None:
    config = ModelConfig(max_batch_size=8)
    config.parameters["compute_batch_size"].string_value = value

    with pytest.raises(InvalidConfig, match="from 1 to max_batch_size 8"):
        parts_of(config)
