"""The largest batch of models that say none: from options, into configs, around parts."""

import pytest

from trivet.backends.api import About, InvalidConfig, Signature
from trivet.backends.api.completion import DEFAULT_MAX_BATCH_SIZE, DEFAULT_PARAMETER
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.batch_size import COMPUTE_BATCH_SIZE, DefaultBatchSizes
from trivet.server.settings import Settings

ONE = About(word="one", backend="", completes=frozenset({"max_batch_size"}))


def completed(size: int, text: str = "") -> ModelConfig:
    config = ModelConfig(name="m", max_batch_size=size)
    config.dynamic_batching.SetInParent()
    return config


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


@pytest.mark.parametrize(
    "about",
    [
        About(word="two", backend=""),
        About(word="x", backend="", completes=ONE.completes, runs_user_code=True),
    ],
)
def test_backends_that_choose_no_batches_are_not_told(about: About) -> None:
    config = ModelConfig()

    DefaultBatchSizes().ask(config, about)

    assert not config.parameters


@pytest.mark.parametrize("value", ["many", "-1", "", "4294967296"])
def test_a_wrong_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig, match="must be a number of rows"):
        DefaultBatchSizes.parse(1024, [f"default-max-batch-size={value}"])


def test_a_default_limit_is_of_requests_and_rows_are_computed_in_parts() -> None:
    config = completed(1024)
    config.parameters[DEFAULT_PARAMETER].string_value = "1024"

    DefaultBatchSizes().settle(ModelConfig(), config, ONE)

    assert DEFAULT_PARAMETER not in config.parameters
    assert parts_of(config) == COMPUTE_BATCH_SIZE


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (ModelConfig(max_batch_size=1024), 1024),  # the config says so
        (ModelConfig(), 64),  # the file does
        (ModelConfig(), 0),
    ],
)
def test_other_limits_are_of_batches(given: ModelConfig, size: int) -> None:
    config = completed(size)

    DefaultBatchSizes().settle(given, config, ONE)

    assert parts_of(config) == size


def test_preferred_sizes_say_how_many_rows_are_computed() -> None:
    given = ModelConfig()
    given.dynamic_batching.preferred_batch_size.extend([4, 8])
    config = completed(1024)

    DefaultBatchSizes().settle(given, config, ONE)

    assert parts_of(config) == 8


@pytest.mark.parametrize("value", ["0", "9", "x"])
def test_a_wrong_part_is_refused_with_its_limit(value: str) -> None:
    config = completed(8)
    config.parameters["compute_batch_size"].string_value = value

    with pytest.raises(InvalidConfig, match="from 1 to max_batch_size 8"):
        parts_of(config)
