"""The verbs against a running server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from serving import RunningServer, write_adder, write_identity

from trivet import __version__
from trivet.server.cli import LazyGroup, main
from trivet.server.commands.exits import NOBODY, NOT_THERE


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("models")
    write_adder(repository, "adder", 1)
    write_identity(repository, "batched", dims="2")
    write_identity(repository, "words", datatype="TYPE_STRING", dims="-1")
    return serve(repository, "--model-control-mode=explicit", "--load-model=*")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def infer(server: RunningServer, *arguments: str) -> list[dict[str, object]]:
    result = run("infer", *arguments, "--url", f"http://{server.http}")
    assert result.exit_code == 0, result.output
    outputs: list[dict[str, object]] = json.loads(result.output)
    return outputs


def test_version() -> None:
    assert run("--version").output == f"trivet, version {__version__}\n"


def test_help_lists_verbs_without_importing_what_they_need() -> None:
    program = (
        "import sys; from trivet.server.cli import main; main(['--help'], standalone_mode=False);"
        "print(*(n for n in ('numpy', 'rich', 'orjson', 'trivet.backends') if n in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    *listed, imported = done.stdout.splitlines()
    assert imported == ""
    assert isinstance(main, LazyGroup)
    for verb, summary in main.verbs.items():
        assert f"  {verb:<12}  {summary}" in listed
        command = main.get_command(click.Context(main), verb)
        assert command is not None
        assert (command.help or "").startswith(summary.removesuffix("."))


@pytest.mark.parametrize("given", ["x=2", "x=[2.0]"])
def test_infer_takes_lists(server: RunningServer, given: str) -> None:
    (output,) = infer(server, "adder", "--input", given)
    assert output["data"] == [3.0]


def test_infer_reads_arrays_and_writes_archives(server: RunningServer, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([5], np.float32))
    url, out = f"http://{server.http}", str(tmp_path / "out.npz")
    given = f"x=@{tmp_path / 'x.npy'}"
    assert run("infer", "adder", "--input", given, "--url", url, "-o", out).exit_code == 0
    with np.load(out) as written:
        assert written["y"].tolist() == [6]


def test_infer_adds_a_missing_batch_dimension(server: RunningServer) -> None:
    (output,) = infer(server, "batched", "--input", "INPUT0=1,2")
    assert output["shape"] == [1, 2]


def test_infer_sends_text(server: RunningServer) -> None:
    (output,) = infer(server, "words", "--input", 'INPUT0=["grün", ""]')
    assert output["data"] == ["grün", ""]


def test_infer_shows_the_curl_command(server: RunningServer) -> None:
    url = f"http://{server.http}"
    shown = run("infer", "adder", "--input", "x=2", "--url", url, "--show-curl").output
    assert shown.startswith(f"curl -s {url}/v2/models/adder/infer -d ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("adder", "--input", "z=1"), "NAME=VALUES with a name out of x"),
        (("adder", "--input", "x=a"), "neither a comma-separated list"),
        (("adder", "--input", "x=@/nothing.npy"), "neither a comma-separated list"),
        (("nothing", "--input", "x=1"), "'nothing' is not found"),
        (("adder", "--input", "x=1,2"), "unexpected shape for input 'x'"),
    ],
)
def test_infer_explains_what_is_wrong(
    server: RunningServer, arguments: tuple[str, ...], text: str
) -> None:
    result = run("infer", *arguments, "--url", f"http://{server.http}")
    assert result.exit_code != 0
    assert text in result.output


def test_models_are_listed_loaded_and_unloaded(server: RunningServer) -> None:
    url = f"http://{server.http}"
    listed = json.loads(run("models", "--url", url, "list", "-o", "json").output)
    assert {"name": "adder", "version": "1", "state": "READY"}.items() <= listed[0].items()
    assert "READY" in run("models", "--url", url, "list").output
    assert run("models", "--url", url, "unload", "words").exit_code == 0
    assert run("infer", "words", "--input", "INPUT0=a", "--url", url).exit_code == NOT_THERE
    assert run("models", "--url", url, "load", "words").exit_code == 0
    refused = run("models", "--url", url, "load", "nothing")
    assert refused.exit_code == 1
    assert "failed to poll from model repository" in refused.output


def test_without_a_server_the_way_out_is_named() -> None:
    result = run("models", "--url", "http://127.0.0.1:9", "list")
    assert result.exit_code == NOBODY
    assert "no server answers" in result.output
    assert "trivet serve" in result.output


def test_validate_says_that_it_looks_at_folders_alone() -> None:
    result = run("repo", "validate", "s3://bucket/models")
    assert result.exit_code == 2
    assert "addresses are not looked at; copy the repository here first" in result.output


def test_validate_reports_places_and_fails(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text("\nmax_batch_sise: 3")
    result = run("repo", "validate", str(tmp_path))
    assert result.exit_code == 1
    assert "m/config.pbtxt:2:1: error [config-unknown-field]" in result.output
    rows = json.loads(run("repo", "validate", str(tmp_path), "-o", "json").output)
    assert rows[0]["line"] == 2
    write_adder(tmp_path, "good", 1)
    (tmp_path / "m" / "config.pbtxt").unlink()
    (tmp_path / "m" / "1").rmdir()
    (tmp_path / "m").rmdir()
    assert run("repo", "validate", str(tmp_path)).exit_code == 0
