"""The logging extension, with tritonclient over both protocols: read, changed, and obeyed."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from serving import RunningServer, write_identity
from tritonclient.utils import InferenceServerException

AT_START = {
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "server.log"


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory, log_file: Path
) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    write_identity(repository, "identity")
    return serve(repository, f"--log-file={log_file}")


@pytest.fixture(params=[httpclient, grpcclient], ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Any]:
    address = server.http if request.param is httpclient else server.grpc
    with closing(request.param.InferenceServerClient(address)) as made:
        yield made
        made.update_log_settings(AT_START)


def settings_of(client: Any) -> dict[str, Any]:
    read = client.get_log_settings()
    if isinstance(read, dict):
        return read
    fields = {"bool_param", "uint32_param", "string_param"}
    return {
        name: next(getattr(value, field) for field in fields if value.HasField(field))
        for name, value in read.settings.items()
    }


def test_settings_are_those_of_the_start(client: Any, log_file: Path) -> None:
    assert settings_of(client) == {"log_file": str(log_file), **AT_START}


def test_verbose_lines_come_and_go_while_the_server_runs(
    client: Any, server: RunningServer, log_file: Path
) -> None:
    def infer() -> str:
        before = log_file.stat().st_size
        body = {"INPUT0": [0.5] * 16}
        with closing(httpclient.InferenceServerClient(server.http)) as asking:
            answer = asking._post("v2/models/identity/generate", json.dumps(body), {}, {})
        assert answer.status_code == 200
        return log_file.read_text()[before:]

    assert "request answered" not in infer()
    changed = client.update_log_settings({"log_verbose_level": 1, "log_format": "json"})
    assert changed is not None
    lines = [json.loads(line) for line in infer().splitlines()]
    assert any(line["msg"] == "request answered" for line in lines)
    client.update_log_settings({"log_verbose_level": 0, "log_format": "default"})
    assert "request answered" not in infer()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"log_file": "/tmp/elsewhere"}, "can not be updated through network protocol"),
        ({"log_infos": True}, "unknown log setting 'log_infos'; known are log_info,"),
        ({"log_format": "yaml"}, "must be one of default, ISO8601, json, got 'yaml'"),
    ],
)
def test_what_cannot_be_set_is_named_and_changes_nothing(
    client: Any, log_file: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.update_log_settings({**changes, "log_error": False})
    assert text in str(caught.value)
    assert settings_of(client) == {"log_file": str(log_file), **AT_START}
