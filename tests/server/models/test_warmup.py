"""Warm-up samples: what every instance computes before it serves."""

from pathlib import Path

import numpy as np
import pytest

from trivet.backends.api import BackendFailed, Batch, InvalidConfig, ModelFiles
from trivet.server.models.warmup import warm, warmup_batches
from trivet.server.repository.config import parse_config
from trivet.server.scheduling.sequences.plan import SequencePlan


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    (tmp_path / "m" / "warmup").mkdir(parents=True)
    return ModelFiles(tmp_path / "m", 1)


def batches(text: str, files: ModelFiles) -> list[Batch]:
    config = parse_config(text, "m/config.pbtxt")
    config.name = "m"
    return list(warmup_batches(config, files))


def sample(data: str, *, datatype: str = "TYPE_FP32", more: str = "") -> str:
    return (
        f"max_batch_size: 4 model_warmup [{{ name: 's' batch_size: 2 {more} inputs {{ key: 'X' "
        f"value {{ data_type: {datatype} dims: [3] {data} }} }} }}]"
    )


def test_a_sample_has_its_batch_size_and_shape(files: ModelFiles) -> None:
    (batch,) = batches(sample("zero_data: true"), files)
    values = batch.gather("X")
    assert values is not None
    assert values.shape == (2, 3)
    assert not values.any()
    assert batch.size == 2


def test_count_repeats_a_sample(files: ModelFiles) -> None:
    assert len(batches(sample("zero_data: true", more="count: 3"), files)) == 3


@pytest.mark.parametrize("datatype", ["TYPE_FP32", "TYPE_INT8", "TYPE_BF16", "TYPE_BOOL"])
def test_random_data_has_the_datatype(files: ModelFiles, datatype: str) -> None:
    (batch,) = batches(sample("random_data: true", datatype=datatype), files)
    assert batch.requests[0].inputs["X"].datatype.config_name == datatype


def test_random_text_is_empty_text(files: ModelFiles) -> None:
    (batch,) = batches(sample("random_data: true", datatype="TYPE_STRING"), files)
    values = batch.gather("X")
    assert values is not None
    assert values.ravel().tolist() == [b""] * 6


def test_a_file_gives_the_values(files: ModelFiles) -> None:
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    (files.model_dir / "warmup" / "x.raw").write_bytes(expected.tobytes())
    (batch,) = batches(sample("input_data_file: 'x.raw'"), files)
    values = batch.gather("X")
    assert values is not None
    assert (values == expected).all()


@pytest.mark.parametrize("content", [b"", b"123", bytes(25)])
def test_a_file_of_another_size_is_refused(files: ModelFiles, content: bytes) -> None:
    (files.model_dir / "warmup" / "x.raw").write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"'warmup/x.raw' of \d+ bytes does not hold"):
        batches(sample("input_data_file: 'x.raw'"), files)


def test_a_file_that_is_missing_is_refused(files: ModelFiles) -> None:
    with pytest.raises(InvalidConfig, match=r"no file 'x.raw'"):
        batches(sample("input_data_file: 'x.raw'"), files)


def test_rows_of_a_stateful_model_are_whole_sequences(files: ModelFiles) -> None:
    text = (
        sample("zero_data: true")
        + """ sequence_batching {
      control_input { name: "S" control { kind: CONTROL_SEQUENCE_START bool_false_true: [ 0, 1 ] } }
      control_input { name: "C" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 } }
      state { input_name: "I" output_name: "O" data_type: TYPE_FP32 dims: [ 2 ] }
    } """
    )
    config = parse_config(text, "")
    (batch,) = warmup_batches(config, files, SequencePlan.read(config, files))
    gathered = {name: batch.gather(name) for name in ("X", "S", "C", "I")}
    values = {name: each.tolist() for name, each in gathered.items() if each is not None}
    assert values == {
        "X": [[0] * 3] * 2,
        "S": [[True], [True]],
        "C": [[1], [2]],
        "I": [[0, 0], [0, 0]],
    }


def test_a_ragged_sample_is_one_row(files: ModelFiles) -> None:
    text = sample("zero_data: true") + (
        'input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }'
    )
    (batch,) = batches(text, files)
    row = batch.gather("X")
    assert row is not None
    assert row.shape == (6,)


def test_a_request_that_fails_while_warming_fails_the_load(files: ModelFiles) -> None:
    class Failing:
        def execute(self, batch: Batch) -> None:
            batch.fail(0, BackendFailed("cold"))

        def is_ready(self) -> bool:
            return True

        def close(self) -> None: ...

    config = parse_config(sample("zero_data: true"), "")
    with pytest.raises(BackendFailed, match="cold"):
        warm(Failing(), config, files)
