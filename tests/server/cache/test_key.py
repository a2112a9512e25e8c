"""Keys: whatever may change an answer changes the key, and nothing else does."""

from pathlib import Path

import numpy as np
import pytest
from fakes import make_request

from trivet.backends.api import CheckedRequest, ModelFiles, Tensor
from trivet.backends.api.value import changed
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.cache.key import digest_of_model, key_of


def request_of(**changes: object) -> CheckedRequest:
    return changed(make_request("id", value=1), **changes)


def inputs_of(name: str, values: np.ndarray) -> dict[str, Tensor]:
    return {name: Tensor.of(name, values)}


ONES = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": inputs_of("IN", ONES * 2)},
        {"inputs": inputs_of("NI", ONES)},
        {"inputs": inputs_of("IN", ONES.reshape(2, 1))},
        {"inputs": inputs_of("IN", ONES.view(np.int32))},
        {"inputs": {**inputs_of("IN", ONES), **inputs_of("MORE", ONES)}},
        {"output_names": ("OUT",)},
        {"parameters": {"temperature": 0.5}},
        {"tenant": "another"},
    ],
)
def test_what_may_change_the_answer_changes_the_key(changes: dict[str, object]) -> None:
    assert key_of(b"m", request_of(**changes)) != key_of(b"m", request_of())


def test_id_priority_and_time_out_do_not_count() -> None:
    other = request_of(id="other", priority=3, timeout_us=5, deadline=1.0)
    assert key_of(b"m", other) == key_of(b"m", request_of())


def test_the_order_of_inputs_does_not_count() -> None:
    first, second = inputs_of("A", ONES), inputs_of("B", ONES)
    orders = [{**first, **second}, {**second, **first}]
    one, other = (key_of(b"m", request_of(inputs=inputs)) for inputs in orders)
    assert one == other


def test_texts_that_look_alike_in_a_row_are_different() -> None:
    one, other = (
        inputs_of("T", np.array([texts], dtype=object)) for texts in ([b"a", b"bc"], [b"ab", b"c"])
    )
    assert key_of(b"m", request_of(inputs=one)) != key_of(b"m", request_of(inputs=other))


def digest_of(folder: Path, version: int = 1, batch: int = 0) -> bytes:
    return digest_of_model(ModelConfig(max_batch_size=batch), ModelFiles(folder, version))


def test_a_model_s_digest_follows_its_content_not_its_place(tmp_path: Path) -> None:
    for name in ("here", "there"):
        for version in ("1", "2"):
            (tmp_path / name / version).mkdir(parents=True)
            (tmp_path / name / version / "model.py").write_text("x = 1")
    here, there = tmp_path / "here", tmp_path / "there"
    assert digest_of(here) == digest_of(there)
    (there / "2/model.py").write_text("x = 2")
    assert digest_of(here) == digest_of(there)
    (there / "1/model.py").write_text("x = 3")
    assert digest_of(here) != digest_of(there)
    assert digest_of(here, batch=4) != digest_of(here)
