"""`trivet run`: the repository that one model becomes, and the way from a file to an answer."""

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from llm_site import write_small_llm
from patience import patience
from serving import write_adder

from trivet.server.commands.run import ended_by_signals, repository_of


def test_a_file_is_a_repository_of_its_own_for_a_while(tmp_path: Path) -> None:
    model = tmp_path / "x.onnx"
    model.write_bytes(b"model")
    with repository_of(str(model)) as place:
        assert [path.name for path in Path(place).iterdir()] == ["x.onnx"]
        assert (Path(place) / "x.onnx").samefile(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.onnx"]


def test_so_is_a_folder(tmp_path: Path) -> None:
    write_adder(tmp_path, "adder", 1)
    with repository_of(str(tmp_path / "adder")) as place:
        assert (Path(place) / "adder/1/model.onnx").samefile(tmp_path / "adder/1/model.onnx")


def test_links_of_the_hubs_cache_are_followed_and_keep_their_names(tmp_path: Path) -> None:
    blob, snapshot = tmp_path / "blobs/1f2e", tmp_path / "snapshots/main"
    blob.parent.mkdir()
    blob.write_bytes(b"model")
    snapshot.mkdir(parents=True)
    (snapshot / "x.gguf").symlink_to("../../blobs/1f2e")
    for given, found in ((snapshot, "main/x.gguf"), (snapshot / "x.gguf", "x.gguf")):
        with repository_of(str(given)) as place:
            assert (Path(place) / found).samefile(blob)


def test_addresses_and_short_names_are_where_they_are() -> None:
    with repository_of("s3://bucket/model") as place:
        assert place == "s3://bucket/model"
    with repository_of("smollm2-1.7b") as place:
        assert place == "hf://HuggingFaceTB/SmolLM2-1.7B-Instruct"
    with (
        pytest.raises(click.UsageError, match=r"no file, no folder .* smollm2, "),
        repository_of("llama-17"),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=str)
def test_it_ends_its_server_whoever_ends_it(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # `nohup` would have it ignored
    try:
        with ended_by_signals(), pytest.raises(SystemExit):
            signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def run(model: Path, prompt: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "trivet", "run", str(model), "--set", "max_tokens=4"],
        input=prompt, capture_output=True, text=True, timeout=patience(60), check=False,
    )  # fmt: skip


def test_a_folder_answers_a_prompt_through_a_pipe(tmp_path: Path) -> None:
    folder = write_small_llm(tmp_path, "small", "")
    done = run(folder / "1", "hello")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_what_does_not_load_says_why(tmp_path: Path) -> None:
    model = tmp_path / "x.onnx"
    model.write_bytes(b"model")
    done = run(model, "")
    assert done.returncode == 1
    assert "the server ended" in done.stderr
    assert "x" in done.stderr
