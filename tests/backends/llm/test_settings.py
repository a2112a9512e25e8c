"""What a config says to its engine, and what it says in vain."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from trivet.backends.api import InvalidConfig, ModelFiles
from trivet.backends.llm.backend import BACKEND
from trivet.backends.llm.settings import engine_settings
from trivet.protos.model_config_pb2 import ModelConfig


def config_of(**parameters: str) -> ModelConfig:
    lines = [
        f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'
        for name, value in parameters.items()
    ]
    return text_format.Parse("\n".join(lines), ModelConfig())


def files_in(folder: Path) -> ModelFiles:
    version = folder / "model" / "1"
    version.mkdir(parents=True)
    (version / "config.json").write_text("{}")
    return ModelFiles(folder / "model", 1)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("max_model_length", "did you mean 'max_model_len'?"),
        ("tensor_parallel", "did you mean 'tensor_parallel_size'?"),
        ("enable_lora", "did you mean 'max_loras'?"),
        ("TRITON_BATCH_STRATEGY_PATH", "it reads attention, block_size"),
    ],
)
def test_parameter_that_nobody_reads_is_refused(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        BACKEND.complete(config_of(**{name: "1"}), files_in(tmp_path))
    assert f"parameter '{name}' is not known to backend 'llm'" in str(caught.value)
    assert told in str(caught.value)


def test_parameters_of_the_server_are_let_be(tmp_path: Path) -> None:
    given = config_of(embeddings_tokenizer="t", gpu_uuids="GPU-1", max_model_len="64")
    files = files_in(tmp_path)
    assert engine_settings(BACKEND.complete(given, files), files).max_model_len == 64


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"pipeline_parallel_size": "0"}, "'pipeline_parallel_size' is 0; it must be at least 1"),
        ({"tensor_parallel_size": "0"}, "'tensor_parallel_size' is 0; it must be at least 1"),
        (
            {"pipeline_parallel_size": "2", "speculative_config": '{"method": "ngram"}'},
            "'pipeline_parallel_size' is 2, and 'speculative_config'",
        ),
    ],
)
def test_sizes_that_nobody_can_compute_are_refused(
    tmp_path: Path, given: dict[str, str], told: str
) -> None:
    escaped = {name: value.replace('"', '\\"') for name, value in given.items()}
    with pytest.raises(InvalidConfig, match=told):
        engine_settings(config_of(**escaped), files_in(tmp_path))
