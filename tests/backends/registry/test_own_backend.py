"""The backend that docs/contributing.md shows is served as it stands there."""

import json
import os
import re
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT
from installed_backend import install_backend
from patience import patience
from serving import RunningServer, start_server

from trivet.server.repository.validate import validate

_FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's model; its package is installed."""
    page = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    files = dict(_FILE.findall(page))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    ((word, target),) = project["entry-points"]["trivet.backends"].items()
    site = tmp_path / "site"
    install_backend(site, word, target, {n: t for n, t in files.items() if n.endswith(".py")})
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(site))
    for name, text in files.items():
        path = tmp_path / name
        if name.startswith("models/"):
            path.parent.mkdir(parents=True)
            path.write_text(text)
    yield tmp_path / "models"
    for name in [name for name in sys.modules if name.partition(".")[0] == "trivet_frob"]:
        del sys.modules[name]


def infer(server: RunningServer, values: list[float]) -> list[float]:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    body = json.dumps({"inputs": [tensor]}).encode()
    url = f"http://{server.http}/v2/models/double/infer"
    with urllib.request.urlopen(
        urllib.request.Request(url, data=body), timeout=patience()
    ) as answer:
        (output,) = json.load(answer)["outputs"]
    data: list[float] = output["data"]
    return data


def test_a_model_of_it_is_served_without_a_config(repository: Path) -> None:
    server = start_server(repository)
    try:
        assert infer(server, [1.0, 2.5, -3.0]) == [2.0, 5.0, -6.0]
        config = json.loads(server.get("/v2/models/double/config")[1])
    finally:
        server.stop()
        server.end()

    assert (config["backend"], config["max_batch_size"]) == ("frob", 4)
    assert [each["name"] for each in config["input"]] == ["X"]


def test_a_model_of_it_is_validated_like_any_other(repository: Path) -> None:
    assert validate([repository]) == []

    config = 'parameters { key: "factr" value { string_value: "3" } }\nruntime: "x"\n'
    (repository / "double/config.pbtxt").write_text(config)
    found = {each.code: each for each in validate([repository])}

    assert found.keys() == {"parameter-unread", "field-unread"}
    assert found["parameter-unread"].fix == "did you mean 'factor'?"
    assert (found["field-unread"].line, found["field-unread"].severity) == (2, "warning")
