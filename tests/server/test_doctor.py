"""`trivet doctor`: what it finds here, and what it says where something is missing."""

import json
import shutil
import socket
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from click.testing import CliRunner
from serving import write_adder

from trivet.backends.api import About
from trivet.backends.llm.native.library import why_not_used
from trivet.server.cli import main
from trivet.server.commands import examination
from trivet.server.commands.examination import Finding, State, examine


class Usage(NamedTuple):
    """Of a disk."""

    total: int
    used: int
    free: int


def found(about: str, *repositories: Path) -> Finding:
    (finding,) = (each for each in examine(repositories) if each.about.startswith(about))
    return finding


def test_it_says_what_is_there(tmp_path: Path) -> None:
    write_adder(tmp_path, "adder", 1)
    result = CliRunner().invoke(main, ["doctor", str(tmp_path), "-o", "json"])
    told = {each["about"]: each for each in json.loads(result.output)}
    assert "onnxruntime" in told["backends"]["text"]
    assert told["Python"]["state"] == "good"
    assert told[f"repository {tmp_path}"]["text"] == "no fault found"
    assert result.exit_code == 0
    assert "ok Python" in CliRunner().invoke(main, ["doctor"]).output


def test_a_fault_of_the_repository_is_red_and_the_exit_code_is_1(tmp_path: Path) -> None:
    folder = write_adder(tmp_path, "adder", 1).parent
    (tmp_path / folder.name / "config.pbtxt").write_text("nonsense")
    result = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert result.exit_code == 1
    assert "!! repository" in result.output


def test_a_port_that_is_taken_is_told_with_who_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = next(e for e in examine((), {"gRPC": port}) if e.about.startswith("port"))
    assert finding.state is State.BETTER
    assert f"{port} is taken by process" in finding.text
    assert "--grpc-port" in finding.mend


def test_what_is_not_installed_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = About(word="ours", backend="x:y", packages=("json",), install="trivet[onnx]")
    other = About(
        word="other", backend="x:y", packages=("no_such_package",), install="trivet[tflite]",
        suffixes=(".other",),
    )  # fmt: skip
    monkeypatch.setattr(examination, "abouts", lambda: {"ours": ours, "other": other})
    assert found("backends").text == "ours"
    missing = found("not installed")
    assert (missing.text, missing.mend) == ("other (.other)", "pip install 'trivet[tflite]'")


def test_little_shared_memory_and_few_files_could_be_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 26, 0, 1 << 26))
    monkeypatch.setattr(psutil.Process, "rlimit", lambda *_: (256, 4096))
    assert found("shared memory").state is State.BETTER
    assert "--shm-size" in found("shared memory").mend
    assert found("open files").mend == "ulimit -n 4096"


def test_without_a_compiler_it_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found("compiled part of llm").text in ("used", f"not used: {why_not_used()}")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(examination, "GUARD", tmp_path / "none.so")
    guard = found("guarded mapping")
    assert guard.state is State.BETTER
    assert "apt install gcc" in guard.mend
