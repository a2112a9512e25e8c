"""Pickles: refused with the way out; allowed ones run in a process of their own, offline."""

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import network
import numpy as np
import pytest
from google.protobuf import text_format
from onnx_models import run_one
from sklearn.ensemble import RandomForestClassifier
from tree_models import ROWS, WORDS, Home, parameters, xgboost_model

from trivet.backends.api import Instance, LoadFailed, ModelFiles, Pickles, Placement
from trivet.backends.process import spawn
from trivet.backends.process.forking import ForkServer
from trivet.backends.registry import open_backend
from trivet.protos.model_config_pb2 import ModelConfig

FULL = np.nan_to_num(ROWS).astype(np.float64)
WITNESS = '''
import os, socket
import numpy as np

class Witness:
    """Says where it was unpickled, and whether the network was there."""
    n_features_in_ = 1
    def __setstate__(self, state):
        try:
            socket.create_connection(("127.0.0.1", state["port"]), timeout=5).close()
            self.reached = 1
        except OSError:
            self.reached = 0
        self.facts = [os.getpid(), self.reached, os.getuid()]
    def predict(self, rows):
        return np.array([self.facts] * len(rows))
'''


def opened(home: Home, pickles: Pickles, text: str = "") -> Instance:
    """As the server does it: completed, then opened."""
    files = replace(home.files, pickles=pickles)
    config = text_format.Parse(text, ModelConfig(name="m", backend="sklearn"))
    backend = open_backend("sklearn")
    completed = backend.complete(config, files)
    return backend.open(completed, files, Placement("m_0_0", "KIND_CPU", 0, 1))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m", "sklearn")


@pytest.mark.more_of("R09")
@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib"])
def test_a_pickle_is_refused_with_the_way_out(home: Home, name: str) -> None:
    home.path(name).write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")

    with pytest.raises(LoadFailed) as raised:
        opened(home, Pickles.REFUSED, parameters(isolation="none"))

    text = raised.value.message
    assert f"'{name}' is a pickle" in text
    assert "skops.io.dump" in text
    assert "skl2onnx" in text
    assert "--allow-pickle m," in text


def test_an_allowed_pickle_predicts_as_the_library(home: Home) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(FULL, WORDS)
    joblib.dump(model, home.path("model.joblib"))

    answers = run_one(opened(home, Pickles.HERE), input=FULL)

    np.testing.assert_array_equal(answers["predict_proba"], model.predict_proba(FULL))


def test_scikit_learn_is_imported_once_to_complete_and_to_open(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    joblib.dump(RandomForestClassifier(5, random_state=0).fit(FULL, WORDS), home.path("model.pkl"))
    interpreters: list[str] = []

    class Counted(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            interpreters.append(command[3])
            super().__init__(command, **options)

    own = ForkServer("sklearn")
    monkeypatch.setattr(spawn, "fork_server_of", lambda _: own)
    monkeypatch.setattr(subprocess, "Popen", Counted)
    opened(home, Pickles.APART).close()
    assert len(interpreters) == 1
    assert "fork_server" in interpreters[0]
    own._end()


def witness(home: Home, port: int) -> ModelFiles:
    """A pickle of a class in a module beside it."""
    home.path("herder.py").write_text(WITNESS)
    reference = b"\x80\x04cherder\nWitness\n)\x81}\x8c\x04port"
    home.path("model.pkl").write_bytes(
        reference + b"J" + port.to_bytes(4, "little", signed=True) + b"sb."
    )
    return home.files


def test_it_runs_apart_without_the_network(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        witness(home, listener.getsockname()[1])
        isolated = opened(home, Pickles.APART, parameters(isolation="none"))
        pid, reached, user = run_one(isolated, input=np.zeros((1, 1)))["predict"][0]
        isolated.close()

    assert pid != os.getpid()
    assert user == os.getuid()
    if network.can_be_left():
        assert reached == 0


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x80\x04cherder\nMissing\n.", "needs the module 'herder'"),
        (b"\x80\x04c__main__\nMine\n.", "needs a class that is not there"),
        (b"\x80\x04K\x05.", "holds a int, which has none of the methods predict"),
        (b"\x80\x04\x95", "could not be unpickled"),
    ],
)
def test_what_unpickling_meets_is_told(home: Home, content: bytes, text: str) -> None:
    home.path("model.pkl").write_bytes(content)

    with pytest.raises(LoadFailed, match=text):
        opened(home, Pickles.HERE)


def test_models_of_other_libraries_have_the_same_methods(home: Home) -> None:
    model = xgboost_model("three")
    joblib.dump(model, home.path("model.pkl"))

    answers = run_one(opened(home, Pickles.HERE), input=ROWS.astype(np.float64))

    np.testing.assert_allclose(answers["predict_proba"], model.predict_proba(ROWS))
    np.testing.assert_array_equal(answers["predict"], model.predict(ROWS))
