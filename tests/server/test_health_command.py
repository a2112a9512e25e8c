"""`trivet health` against a server that serves, one that does not yet, and none."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from serving import RunningServer, write_adder

from trivet.server.cli import main


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("models")
    write_adder(repository, "adder", 1)
    write_adder(repository, "away", 1)
    return serve(repository, "--model-control-mode=explicit", "--load-model=adder")


def health(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["health", *arguments])


@pytest.mark.parametrize(
    ("asked", "said"), [((), "ready"), (("--live",), "live"), (("--model", "adder"), "ready")]
)
def test_a_server_that_serves_is_well(
    server: RunningServer, asked: tuple[str, ...], said: str
) -> None:
    told = health(*asked, "--url", f"http://{server.http}")
    assert (told.exit_code, told.output) == (0, f"{said}\n")


@pytest.mark.parametrize("name", ["away", "unknown"])
def test_a_model_that_does_not_serve_is_told(server: RunningServer, name: str) -> None:
    told = health("--model", name, "--url", f"http://{server.http}")
    assert told.exit_code == 1
    assert f"{name} is not ready (status 4" in told.output


def test_no_server_is_no_health() -> None:
    told = health("--url", "http://127.0.0.1:9")
    assert told.exit_code == 1
    assert "no server answers at http://127.0.0.1:9" in told.output


def test_live_and_model_exclude_each_other() -> None:
    told = health("--live", "--model", "adder")
    assert told.exit_code == 2
    assert "give one" in told.output
