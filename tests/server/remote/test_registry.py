"""`mlflow://` against a tracking server on this machine, and against MLflow's own file store."""

import os
from collections.abc import Iterator
from pathlib import Path

import fake_registry
import pytest
from fake_registry import FakeRegistry

from trivet.server.cli import RepositoryPlace
from trivet.server.remote.addresses import open_source
from trivet.server.remote.registry import RegistrySource, read_address
from trivet.server.remote.source import Changed, RemoteError, Source, Unreachable
from trivet.server.settings import Settings

FILES = {
    "MLmodel": b"flavors: {}\n",
    "model.skops": bytes(range(256)) * 20,
    "sub/inner/more.txt": b"more",
    "requirements.txt": b"",
}
CHAMPION = "mlflow://models:/fraud@champion"
SET_BY_US = (
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_CONFIGURE_LOGGING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
    "MLFLOW_HTTP_REQUEST_TIMEOUT",
)


@pytest.fixture(scope="module")
def running() -> Iterator[FakeRegistry]:
    with fake_registry.open_registry() as registry:
        yield registry


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the source sets is gone after the test."""
    for name in SET_BY_US:
        monkeypatch.setenv(name, "")
        del os.environ[name]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)


@pytest.fixture
def registry(running: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """One that holds version 1 of fraud, its champion."""
    vars(running).update({**vars(FakeRegistry()), "uri": running.uri})
    running.register("fraud", FILES)
    running.aliases["fraud", "champion"] = 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    return running


def opened(address: str = CHAMPION) -> RegistrySource:
    source = open_source(address, Settings())
    assert isinstance(source, RegistrySource)
    return source


def fetched(source: Source, path: str, into: Path, at: int = 0) -> bytes:
    list(source.fetch(path, source.listing()[path], into, at))
    return into.read_bytes()


def refused(address: str = CHAMPION) -> str:
    with pytest.raises(RemoteError) as caught:
        opened(address).listing()
    return str(caught.value)


# -- what is there -----------------------------------------------------------------------------


def test_a_version_lies_under_the_registrys_number(registry: FakeRegistry, tmp_path: Path) -> None:
    for _ in range(6):
        number = registry.register("fraud", FILES)
    registry.aliases["fraud", "champion"] = number
    source = opened()
    assert set(source.listing()) == {f"fraud/7/{path}" for path in FILES}
    for path, content in FILES.items():
        into = tmp_path / path.replace("/", "-")
        assert fetched(source, f"fraud/7/{path}", into) == content


def test_an_alias_that_moves_is_another_version(registry: FakeRegistry, tmp_path: Path) -> None:
    source = opened()
    before = source.listing()
    registry.register("fraud", {**FILES, "model.skops": b"better"})
    assert source.listing() == before
    registry.aliases["fraud", "champion"] = 2
    after = source.listing()
    assert set(after) == {f"fraud/2/{path}" for path in FILES}
    assert fetched(source, "fraud/2/model.skops", tmp_path / "x") == b"better"
    with pytest.raises(Changed):
        list(source.fetch("fraud/1/MLmodel", before["fraud/1/MLmodel"], tmp_path / "y", 0))
    registry.aliases["fraud", "champion"] = 1
    assert source.listing() == before


def test_the_version_that_serves_is_listed_where_the_alias_has_moved_on(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    source = opened()
    source.listing()
    registry.register("fraud", FILES)
    source.keep(frozenset({1}))
    registry.aliases["fraud", "champion"] = 2
    after = source.listing()
    assert {path.split("/")[1] for path in after} == {"1", "2"}
    assert fetched(source, "fraud/1/model.skops", tmp_path / "x") == FILES["model.skops"]
    source.keep(frozenset({2}))
    assert {path.split("/")[1] for path in source.listing()} == {"2"}
    # Moved back: what is newer would be taken for the one to serve.
    registry.aliases["fraud", "champion"] = 1
    assert {path.split("/")[1] for path in source.listing()} == {"1"}


def test_files_are_listed_once_a_version(registry: FakeRegistry) -> None:
    source = opened()
    source.listing()
    registry.asked.clear()
    source.listing()
    assert [path for path in registry.asked if "artifacts" in path] == []


def test_a_number_that_is_given_again_is_other_content(registry: FakeRegistry) -> None:
    source = opened()
    before = source.listing()
    registry.models["fraud"][1] = fake_registry.Registered(FILES, created=1_800_000_000_000)
    after = source.listing()
    assert after.keys() == before.keys()
    assert after != before


def test_a_version_by_number_is_asked_for_once(registry: FakeRegistry) -> None:
    source = opened("mlflow://models:/fraud/1")
    before = source.listing()
    registry.is_gone = True
    assert source.listing() == before


def test_latest_is_the_newest_version(registry: FakeRegistry) -> None:
    registry.register("fraud", FILES)
    assert "fraud/2/MLmodel" in opened("mlflow://models:/fraud/latest").listing()
    assert "has no version of 'other'" in refused("mlflow://models:/other/latest")


@pytest.mark.rows("R36")
def test_a_broken_connection_is_resumed(registry: FakeRegistry, tmp_path: Path) -> None:
    source, into = opened(), tmp_path / "x"
    stamp = source.listing()["fraud/1/model.skops"]
    registry.breaks_after = 1000
    with pytest.raises(Unreachable):
        list(source.fetch("fraud/1/model.skops", stamp, into, 0))
    begun = into.stat().st_size
    list(source.fetch("fraud/1/model.skops", stamp, into, begun))
    assert into.read_bytes() == FILES["model.skops"]


@pytest.mark.slow
def test_files_in_a_bucket_come_by_mlflows_own_client(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bucket_site import BUCKET, KEYS, s3_bucket  # loads a server

    with s3_bucket() as bucket:
        for name, value in {**KEYS, "MLFLOW_S3_ENDPOINT_URL": bucket.url}.items():
            monkeypatch.setenv(name, value)
        bucket.put_all({f"fraud/{path}": content for path, content in FILES.items()})
        registry.models["fraud"][1].source = f"s3://{BUCKET}/models/fraud"
        source = opened()
        assert set(source.listing()) == {f"fraud/1/{path}" for path in FILES}
        into = tmp_path / "x"
        into.write_bytes(FILES["model.skops"][:100])
        assert fetched(source, "fraud/1/model.skops", into, 100) == FILES["model.skops"]
        assert list(tmp_path.iterdir()) == [into]
        registry.models["fraud"][1].source = "s3://another-bucket/models/fraud"
        assert "answers 404 NoSuchBucket: the server needs credentials" in refused()


# -- mlflow's own store ------------------------------------------------------------------------


def test_mlflows_file_store_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    model = tmp_path / "model"
    for path, content in FILES.items():
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).write_bytes(content)
    client = MlflowClient()
    client.create_registered_model("fraud")
    client.create_model_version("fraud", model.as_uri())
    client.set_registered_model_alias("fraud", "champion", "1")
    source = opened()
    for path, content in FILES.items():
        into = tmp_path / path.replace("/", "-")
        assert fetched(source, f"fraud/1/{path}", into) == content
    assert "alias nope not found" in refused("mlflow://models:/fraud@nope")
    assert "not found" in refused("mlflow://models:/other/3")


# -- refusals ----------------------------------------------------------------------------------


def test_what_is_not_registered_is_told_in_the_registrys_words(registry: FakeRegistry) -> None:
    assert "Registered Model with name=other not found" in refused("mlflow://models:/other@x")
    assert "alias not found" in refused("mlflow://models:/fraud@other")
    assert "Model Version 9 not found" in refused("mlflow://models:/fraud/9")


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ((401, b"You are not authenticated."), RemoteError, "set MLFLOW_TRACKING_TOKEN"),
        ((403, {"error_code": "PERMISSION_DENIED"}), RemoteError, "set MLFLOW_TRACKING_TOKEN"),
        ((429, b""), Unreachable, "answers 429 now"),
        ((503, b""), Unreachable, "answers 503 now"),
        ((200, b"<html>"), Unreachable, "not in a valid JSON format"),
    ],
)
@pytest.mark.rows("R36")
def test_each_refusal_is_a_sentence(
    registry: FakeRegistry, answer: fake_registry.Answer, error: type[RemoteError], text: str
) -> None:
    registry.refusal = answer
    with pytest.raises(error) as caught:
        opened().listing()
    assert text in str(caught.value)
    assert type(caught.value) is error


def test_a_registry_that_is_gone_may_come_back(registry: FakeRegistry, tmp_path: Path) -> None:
    source = opened()
    listing = source.listing()
    registry.is_gone = True
    with pytest.raises(Unreachable, match="does not answer"):
        source.listing()
    with pytest.raises(Unreachable, match="does not answer"):
        list(source.fetch("fraud/1/MLmodel", listing["fraud/1/MLmodel"], tmp_path / "x", 0))
    registry.is_gone = False
    assert source.listing() == listing


def test_a_version_that_is_being_registered_is_waited_for(registry: FakeRegistry) -> None:
    registry.models["fraud"][1].status = "PENDING_REGISTRATION"
    with pytest.raises(Unreachable, match="taken when it is READY"):
        opened().listing()
    registry.models["fraud"][1].status = "FAILED_REGISTRATION"
    assert "register it again" in refused()


def test_a_place_without_a_model_is_not_taken(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    registry.models["fraud"][1].source = tmp_path.as_uri()
    assert f"there is no file MLmodel at {tmp_path.as_uri()}" in refused()


@pytest.mark.rows("R36")
def test_artifacts_that_lead_elsewhere_are_refused(registry: FakeRegistry) -> None:
    registry.listed_besides = [{"path": "../../x", "is_dir": False, "file_size": 1}]
    assert "Invalid path" in refused()


def test_a_bucket_whose_client_is_missing_names_the_package(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    registry.models["fraud"][1].source = "gs://bucket/model"
    assert "MLflow needs the package 'google" in refused()


def test_mlflow_does_not_report_its_use(registry: FakeRegistry) -> None:
    opened()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_registry_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match="set MLFLOW_TRACKING_URI to the address"):
        opened()


def test_no_password_is_shown(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri.replace("//", "//me:secret@"))
    registry.is_gone = True
    assert "secret" not in refused()


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "uri", "model"),
    [
        ("mlflow://models:/fraud@champion", "models:/fraud@champion", "fraud"),
        ("mlflow://models:/fraud/3", "models:/fraud/3", "fraud"),
        (
            "mlflow://models:/main.risk.fraud@champion",
            "models:/main.risk.fraud@champion",
            "main.risk.fraud",
        ),
        ("mlflow://models:/my model (b)/latest", "models:/my model (b)/latest", "my model -b-"),
    ],
)  # fmt: skip
def test_addresses_are_mlflows_own(text: str, uri: str, model: str) -> None:
    found = read_address(text)
    assert (found.uri, found.model) == (uri, model)


def test_mlflows_own_form_is_an_address_on_the_command_line() -> None:
    found = RepositoryPlace().convert("models:/fraud@champion", None, None)
    assert found == "mlflow://models:/fraud@champion"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mlflow://models:/fraud", "names no version or alias"),
        ("mlflow://models:/fraud/Production", "does not have the form"),
        ("mlflow://runs:/1234/model", "does not have the form"),
        ("mlflow://me:secret@host/models:/fraud/1", "does not have the form"),
    ],
)
def test_other_addresses_are_refused(text: str, why: str) -> None:
    with pytest.raises(RemoteError, match=why) as caught:
        read_address(text)
    assert "secret" not in str(caught.value)
