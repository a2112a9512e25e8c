"""A backend that says that its models bring code has them run in processes of their own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from installed_backend import install_backend

from trivet.backends.api import Batch, CheckedRequest, Tensor
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.loader import Loader, Opened
from trivet.server.models.registry import Registry
from trivet.server.repository.scan import scan

CODED = """
import os
import numpy as np
from trivet.backends.api import About

class Instance:
    def execute(self, batch):
        batch.scatter("pid", np.array([[os.getpid()]], np.int64))
    def is_ready(self):
        return True
    def close(self):
        pass

class Backend:
    def complete(self, config, files):
        completed = type(config)()
        completed.CopyFrom(config)
        completed.input.add(name="x", data_type="TYPE_FP32", dims=[1])
        completed.output.add(name="pid", data_type="TYPE_INT64", dims=[1])
        completed.metric_tags["completed_by"] = str(os.getpid())
        return completed
    def open(self, config, files, placement):
        return Instance()

BACKEND = Backend()
ABOUT = About(
    word="coded", backend="coded:BACKEND", names=("rules.coded",), runs_user_code=True,
    completes=frozenset({"input", "output"}),
)
"""
ISOLATION = 'parameters { key: "isolation" value { string_value: "%s" } }\n'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model of such a backend, which is installed."""
    install_backend(tmp_path / "site", "coded", "coded:ABOUT", {"coded.py": CODED})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    version = tmp_path / "models" / "m" / "1"
    version.mkdir(parents=True)
    (version / "rules.coded").write_text("")
    yield tmp_path / "models"
    sys.modules.pop("coded", None)


def load(repository: Path) -> Opened:
    loader = Loader(RegistryCatalog(Registry()))
    folder = scan([repository]).models["m"]
    return loader.open(loader.plan(folder, None), 1)


def ran_in(opened: Opened) -> tuple[int, int]:
    """The processes that completed the config and computed."""
    ((_, instance),) = opened.instances
    request = CheckedRequest("m", 1, "", {"x": Tensor.of("x", np.zeros(1, np.float32))})
    batch = Batch([request], batching=False)
    instance.execute(batch)
    instance.close()
    completed_by = opened.config.metric_tags["completed_by"]
    return int(completed_by), int(batch.outputs[0][0].numpy().reshape(-1)[0])


def test_their_code_runs_apart_from_the_server(repository: Path) -> None:
    opened = load(repository)

    assert os.getpid() not in ran_in(opened)
    assert opened.cpu_memory_bytes > 0


def test_isolation_none_keeps_it_inside(repository: Path) -> None:
    (repository / "m" / "config.pbtxt").write_text(ISOLATION % "none")
    opened = load(repository)

    assert ran_in(opened) == (os.getpid(), os.getpid())
    assert opened.cpu_memory_bytes == 0
