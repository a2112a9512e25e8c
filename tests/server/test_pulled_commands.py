"""`trivet pull`, `list`, `show` and `rm`, with a hub on this machine and an index in a folder."""

import errno
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fake_hub
import pytest
from click.testing import CliRunner, Result
from fake_hub import FakeHub
from huggingface_hub import constants
from serving import adder_bytes

from trivet.server.cli import main
from trivet.server.commands import exits
from trivet.server.commands.catalogue import short_names
from trivet.server.remote import pulled
from trivet.server.remote.fetching import Patience
from trivet.server.remote.hub import HubSource
from trivet.server.remote.packages import PackageSource, read_address
from trivet.server.remote.source import RemoteError

FILES = {"config.json": b'{"architectures": ["BertModel"]}', "model.safetensors": b"w" * 9000}
ADDRESS = "hf://org/name"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeHub]:
    with fake_hub.open_hub() as hub:
        hub.repo("org/name").push(FILES)
        yield hub


@pytest.fixture
def hub(running: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    """One that is asked once: nobody waits for it."""
    running.is_gone = False
    monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(pulled.Pulls.__init__, "__defaults__", (Patience(num_tries=1),))
    monkeypatch.setenv("TRIVET_REMOTE_CACHE", str(tmp_path / "cache"))
    return running


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def rows() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run("list", "-o", "json").stdout)["pulled"]
    return found


def test_what_is_pulled_is_listed_shown_and_removed(hub: FakeHub, tmp_path: Path) -> None:
    done = run("pull", ADDRESS)
    assert done.exit_code == 0, done.output
    assert "2 file(s), 8.8 KiB" in done.stdout
    (row,) = rows()
    assert (row["address"], row["is_whole"], row["num_files"]) == (ADDRESS, True, 2)
    assert ADDRESS in run("list").stdout
    shown = json.loads(run("show", ADDRESS, "-o", "json").stdout)
    assert shown[0]["name"] == "name"
    assert shown[0]["versions"]["1"]["model.safetensors"] == 9000
    assert run("rm", ADDRESS).exit_code == 0
    assert rows() == []
    assert list((tmp_path / "cache/blobs").glob("*/*")) == []
    assert run("rm", ADDRESS).exit_code == exits.NOT_THERE


def test_without_a_network_it_says_what_to_copy_where(hub: FakeHub, tmp_path: Path) -> None:
    hub.is_gone = True
    done = run("pull", ADDRESS)
    assert done.exit_code == exits.NOBODY
    assert f"run `trivet pull {ADDRESS}` on a machine that has one" in done.output
    assert f"to {tmp_path / 'cache'}" in done.output


def test_a_disk_that_fills_is_told_and_the_next_pull_goes_on(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = HubSource.fetch

    def fills(self: HubSource, path: str, stamp: object, into: Path, at: int) -> Iterator[int]:
        if not path.endswith(".safetensors"):
            yield from fetch(self, path, stamp, into, at)  # type: ignore[arg-type]
            return
        into.write_bytes(FILES["model.safetensors"][:4000])
        yield 4000
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(HubSource, "fetch", fills)
        done = run("pull", ADDRESS)
    assert done.exit_code == exits.DISK
    assert "No space left on device" in done.output
    assert "the next pull goes on there" in done.output
    hub.at_storage.clear()
    assert run("pull", ADDRESS).exit_code == 0
    assert [each.range for each in hub.at_storage] == ["bytes=4000-"]


def test_names_that_are_nothing_are_told_what_there_is(hub: FakeHub) -> None:
    done = run("pull", "llama-17")
    assert done.exit_code == 2
    assert "short names are smollm2, " in done.output
    assert "is hf://Qwen/Qwen3-0.6B" in run("pull", "Qwen/Qwen3-0.6B").output
    assert run("pull", "hf://org/other").exit_code == exits.NOT_THERE


def test_a_file_is_shown_without_being_pulled(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(adder_bytes(1))
    shown = run("show", str(tmp_path / "x.onnx"))
    assert shown.exit_code == 0, shown.output
    assert "x: backend onnxruntime" in shown.stdout


# -- packages --------------------------------------------------------------------------------------


def write_wheel(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = "Metadata-Version: 2.1\nName: models-of-ours\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / "models_of_ours-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ours/adder.onnx", adder_bytes(1))
        wheel.writestr("ours/folder/config.json", "{}")
        wheel.writestr("ours/folder/code.py", "raise SystemExit")
        wheel.writestr("models_of_ours-1.0.dist-info/METADATA", told)
        wheel.writestr("models_of_ours-1.0.dist-info/WHEEL", tags)
        wheel.writestr("models_of_ours-1.0.dist-info/RECORD", "")


def test_a_model_of_a_package_is_fetched_by_pip_and_the_wheel_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("TRIVET_REMOTE_CACHE", str(tmp_path / "cache"))
    address = "pypi://models-of-ours==1.0/ours/adder.onnx#plus"
    done = run("pull", address)
    assert done.exit_code == 0, done.output
    assert "plus: backend onnxruntime" in run("show", address).stdout
    assert list((tmp_path / "cache/packages").rglob("*.whl")) == []
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert run("pull", address).exit_code == 0, "it is here, and its version never changes"


def source(address: str, folder: Path) -> PackageSource:
    read = read_address(address)
    write_wheel(folder / read.requirement)
    return PackageSource(address, read, folder)


def test_a_folder_of_a_package_is_version_1_without_code(tmp_path: Path) -> None:
    found = source("pypi://models-of-ours==1.0/ours/folder", tmp_path).listing()
    assert set(found) == {"models-of-ours/1/config.json"}


@pytest.mark.parametrize("path", ["ours/folder/code.py", "ours/nothing"])
def test_code_and_what_is_not_there_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"could run code|has no 'ours/nothing'"):
        source(f"pypi://models-of-ours==1.0/{path}", tmp_path).listing()


@pytest.mark.parametrize(
    "address", ["pypi://x/y", "pypi://x==1", "pypi://x==1/../y", "pypi://-x==1/y"]
)
def test_addresses_of_another_form_are_refused(address: str) -> None:
    with pytest.raises(RemoteError, match="its form is"):
        read_address(address)


def test_every_short_name_is_an_address_of_a_known_form() -> None:
    for address in short_names().values():
        if address.startswith("pypi://"):
            read_address(address)
        else:
            assert address.startswith("hf://")
