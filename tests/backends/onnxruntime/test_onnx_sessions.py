"""Instances share one session as long as the files beside the model stay the same."""

import gc
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_models import (
    Home,
    graph_model,
    identity_model,
    run_one,
)

from trivet.backends.onnxruntime import options, sessions


def count_sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the sessions that are made from now on."""
    made: list[str] = []
    make = sessions.create_session

    def counting(path: Path, plan: options.SessionPlan) -> ort.InferenceSession:
        made.append(path.name)
        return make(path, plan)

    monkeypatch.setattr(sessions, "create_session", counting)
    return made


def test_instances_of_a_version_share_one_session(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.put(identity_model())
    made = count_sessions(monkeypatch)

    first, second = home.open(), home.open()
    first.close()

    assert made == ["model.onnx"]
    assert not first.is_ready()
    assert run_one(second, x=np.ones((1, 4), np.float32))["y"].tolist() == [[1.0] * 4]


def test_session_is_freed_with_its_last_instance(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.put(identity_model())
    made = count_sessions(monkeypatch)

    home.open().close()
    gc.collect()
    home.open()

    assert len(made) == 2


def test_file_replaced_in_place_meets_no_older_session(home: Home) -> None:
    home.put(identity_model())
    older = home.open()
    node = helper.make_node("Neg", ["x"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy"]
    home.put(graph_model([node], value[:1], value[1:]))

    newer = home.open()

    ones = np.ones((1, 4), np.float32)
    assert run_one(newer, x=ones)["y"].tolist() == [[-1.0] * 4]
    assert run_one(older, x=ones)["y"].tolist() == [[1.0] * 4]
