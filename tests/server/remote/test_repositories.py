"""The repositories of one server, of which some lie in a bucket: on the event loop."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from bucket_site import BUCKET, Bucket, small_bucket
from mirror_room import AT_ONCE
from patience import patience

from trivet.backends.api import InvalidRequest, Unavailable
from trivet.server.control import RepositoryControl
from trivet.server.models.strangers import Strangers
from trivet.server.remote.follower import Follower
from trivet.server.remote.repositories import Repositories
from trivet.server.repository.scan import RepositoryUnreadableError
from trivet.server.settings import Settings

ADDRESS = f"gs://{BUCKET}/models"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with small_bucket("gs") as opened:
        monkeypatch.setenv("GOOGLE_BASE_URL", opened.url)
        monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        opened.put_all({"add/1/model.onnx": b"first", "add/config.pbtxt": b""})
        yield opened


def settings_of(folder: Path, **more: Any) -> Settings:
    (folder / "local/other/1").mkdir(parents=True, exist_ok=True)
    repositories = (folder / "local", ADDRESS)
    return Settings(model_repository=repositories, remote_cache=str(folder / "cache"), **more)


async def fetched(settings: Settings) -> Repositories:
    repositories = Repositories(settings, AT_ONCE)
    await repositories.fetch()
    return repositories


def num_of(folder: Path, pattern: str) -> int:
    return len([*folder.glob(pattern)])


async def test_a_bucket_is_a_folder_like_any_other(bucket: Bucket, tmp_path: Path) -> None:
    repositories = await fetched(settings_of(tmp_path))
    assert sorted(repositories.scan().models) == ["add", "other"]
    assert repositories.names == [str(tmp_path / "local"), ADDRESS]
    await repositories.close()
    assert num_of(tmp_path, "cache/trees/*") == 0
    assert num_of(tmp_path, "cache/blobs/*/*") == 2


async def test_the_namespace_of_a_bucket_is_its_address(bucket: Bucket, tmp_path: Path) -> None:
    repositories = await fetched(settings_of(tmp_path, model_namespacing=True))
    assert f"{ADDRESS}::add" in repositories.scan().models
    await repositories.close()


async def test_a_model_in_a_folder_and_in_a_bucket_names_both(
    bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "local/add/1").mkdir(parents=True)
    repositories = await fetched(settings_of(tmp_path))
    assert f"'{tmp_path / 'local'}' and '{ADDRESS}'" in repositories.scan().problems["add"]
    await repositories.close()


async def test_an_address_that_is_given_twice_is_one_repository(
    bucket: Bucket, tmp_path: Path
) -> None:
    addresses = (ADDRESS, f"{ADDRESS}/")
    settings = Settings(model_repository=addresses, remote_cache=str(tmp_path / "cache"))
    repositories = await fetched(settings)
    assert [*repositories.scan().models] == ["add"]
    assert not repositories.scan().problems
    await repositories.close()


async def test_a_bucket_is_followed(bucket: Bucket, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, repository_poll_secs=0.01)
    repositories = await fetched(settings)
    noticed = asyncio.Event()
    bucket.put("add/2/model.onnx", b"second")
    repositories.follow(noticed.set)
    await asyncio.wait_for(noticed.wait(), patience())
    while 2 not in repositories.scan().models["add"].versions:
        await asyncio.sleep(0.01)
    await repositories.close()


async def test_the_loop_goes_on_while_files_come(bucket: Bucket, tmp_path: Path) -> None:
    here = Event()

    def hold() -> None:
        assert here.wait(patience())

    bucket.faults.before = [hold]
    repositories = Repositories(settings_of(tmp_path), AT_ONCE)
    fetching = asyncio.ensure_future(repositories.fetch())
    await asyncio.sleep(0.05)
    here.set()
    await fetching
    await repositories.close()


async def test_a_server_that_ends_breaks_off_what_comes(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("big/1/weights", bytes(8 << 20))
    repositories = Repositories(settings_of(tmp_path), AT_ONCE)
    bucket.faults.before = [repositories.end] * 3
    with pytest.raises(RepositoryUnreadableError, match="the server ends"):
        await repositories.fetch()
    await repositories.close()


async def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 65532)
    with pytest.raises(RepositoryUnreadableError, match="who has none; let --remote-cache name"):
        # Nor are there files of AWS's then, which is no mistake.
        Repositories(Settings(model_repository=("s3://bucket/models",)))


async def test_a_cache_may_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    address = "s3://127.0.0.1:1/bucket/models"
    repositories = Repositories(Settings(model_repository=(address,), remote_cache="~/cache"))
    assert num_of(tmp_path, "cache/trees/*") == 1
    await repositories.close()


async def test_repositories_are_closed_together(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, close = Barrier(2), Follower.close

    def closed(follower: Follower, timeout_s: float) -> bool:
        together.wait(patience())
        return close(follower, timeout_s)

    monkeypatch.setattr(Follower, "close", closed)
    addresses = (ADDRESS, f"gs://{BUCKET}/others")
    settings = Settings(model_repository=addresses, remote_cache=str(tmp_path / "cache"))
    await Repositories(settings, AT_ONCE).close()
    assert num_of(tmp_path, "cache/trees/*") == 0


async def test_a_server_starts_with_what_the_last_one_had(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await (await fetched(settings_of(tmp_path))).close()
    bucket.faults.refusals = [(503, "Unavailable")] * 20
    repositories = await fetched(settings_of(tmp_path))
    assert "add" in repositories.scan().models
    assert "serving what was there last time" in caplog.text
    await repositories.close()


async def test_a_bucket_that_is_not_there_stops_the_start_where_there_is_nothing_else(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.faults.is_gone = True
    settings = Settings(model_repository=(ADDRESS,), remote_cache=str(tmp_path / "cache"))
    repositories = Repositories(settings, AT_ONCE)
    with pytest.raises(RepositoryUnreadableError, match="there is no bucket 'bucket'"):
        await repositories.fetch()
    await repositories.close()


@pytest.mark.parametrize(
    ("mode", "when"),
    [
        ("poll", "asked again every 0.01 s"),
        ("none", "not asked again"),
        ("explicit", "asked again when a model is loaded"),
    ],
)
async def test_a_bucket_that_is_not_there_is_left_out_of_the_others_and_told(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, when: str
) -> None:
    bucket.faults.is_gone = True
    settings = settings_of(tmp_path, repository_poll_secs=0.01, model_control_mode=mode)
    repositories = await fetched(settings)
    found = repositories.scan().models
    assert sorted(found) == ["models", "other"]
    assert "could be fetched" in found["models"].advice
    assert ADDRESS not in found["models"].advice
    assert "there is no bucket 'bucket' (404 NoSuchBucket)" in caplog.text
    assert when in caplog.text
    await repositories.close()


@pytest.mark.rows("R40a")
async def test_a_bucket_that_comes_after_the_start_is_taken_by_the_next_look(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.faults.needs = "nobody has this"
    repositories = await fetched(settings_of(tmp_path, repository_poll_secs=0.01))
    noticed = asyncio.Event()
    repositories.follow(noticed.set)
    await asyncio.wait_for(noticed.wait(), patience())
    assert sorted(repositories.scan().models) == ["models", "other"]
    bucket.faults.needs = ""
    while "add" not in repositories.scan().models:
        await asyncio.sleep(0.01)
    assert sorted(repositories.scan().models) == ["add", "other"]
    await repositories.close()


def test_a_cache_that_cannot_be_made_names_the_option(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RepositoryUnreadableError, match="--remote-cache"):
        Repositories(settings_of(tmp_path))


def test_a_cache_that_somebody_else_may_have_filled_is_not_used(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1 << 30)
    with pytest.raises(RepositoryUnreadableError, match=r"another user's.*--remote-cache"):
        Repositories(settings_of(tmp_path))


# -- explicit mode -----------------------------------------------------------------------------


class Loads:
    """A Lifecycle that notes what is loaded, with the bytes of its newest version."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.known: dict[str, object] = {}
        self.composition = self

    def serving(self) -> set[str]:
        return set()

    async def load(self, folder: Any, _: str | None = None) -> None:
        newest = folder.path / str(max(folder.versions)) / "model.onnx"
        self.loaded.append(newest.read_bytes())


@pytest.fixture
def loads() -> Loads:
    return Loads()


async def controlled(folder: Path, loads: Loads) -> tuple[RepositoryControl, Repositories]:
    settings = settings_of(folder, model_control_mode="explicit")
    repositories = await fetched(settings)
    control = RepositoryControl(settings, repositories, Strangers())
    lifecycle: Any = loads
    control.attach(lifecycle)
    return control, repositories


async def test_a_load_takes_what_is_there_now(bucket: Bucket, tmp_path: Path, loads: Loads) -> None:
    control, repositories = await controlled(tmp_path, loads)
    bucket.put("add/2/model.onnx", b"second")
    await control.load("add", None)
    assert loads.loaded == [b"second"]
    await repositories.close()


async def test_a_load_while_the_bucket_is_gone_is_for_later(
    bucket: Bucket, tmp_path: Path, loads: Loads
) -> None:
    control, repositories = await controlled(tmp_path, loads)
    bucket.faults.is_gone = True
    with pytest.raises(Unavailable, match="cannot be read now; the server log has the details"):
        await control.load("add", None)
    bucket.faults.is_gone = False
    await control.load("add", None)
    assert loads.loaded == [b"first"]
    await repositories.close()


@pytest.mark.parametrize(
    "name", [f"gs://{BUCKET}/others", "s3://bucket/m", "hf://org/name", "mlflow:", "gs:bucket"]
)
async def test_no_request_names_a_repository(
    bucket: Bucket, tmp_path: Path, loads: Loads, name: str
) -> None:
    control, repositories = await controlled(tmp_path, loads)
    before = len(bucket.faults.seen)
    with pytest.raises(InvalidRequest):
        await control.load(name, None)
    with pytest.raises(InvalidRequest):
        await control.load(f"{name}::add", None)
    assert set(bucket.faults.seen[before:]) <= {f"/{BUCKET}"}
    assert loads.loaded == []
    await repositories.close()


async def test_what_lies_here_is_loaded_though_a_bucket_is_gone(
    bucket: Bucket, tmp_path: Path, loads: Loads
) -> None:
    control, repositories = await controlled(tmp_path, loads)
    (tmp_path / "local/other/1/model.onnx").write_bytes(b"other")
    bucket.faults.is_gone = True
    await control.load("other", None)
    with pytest.raises(Unavailable, match="cannot be read now"):
        await control.load("add", None)
    assert loads.loaded == [b"other"]
    await repositories.close()


async def test_one_bucket_that_is_gone_holds_up_no_model_of_another(
    bucket: Bucket, tmp_path: Path, loads: Loads
) -> None:
    gone = "s3://127.0.0.1:1/bucket/gone"
    addresses = (ADDRESS, gone)
    cache = str(tmp_path / "cache")
    settings = Settings(
        model_repository=addresses, remote_cache=cache, model_control_mode="explicit"
    )
    repositories = await fetched(settings)
    control = RepositoryControl(settings, repositories, Strangers())
    lifecycle: Any = loads
    control.attach(lifecycle)
    await control.load("add", None)
    assert loads.loaded == [b"first"]
    with pytest.raises(Unavailable, match="cannot be read now"):
        await control.load("perhaps-there", None)
    await repositories.close()


ENSEMBLE = b"""
platform: "ensemble"
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling { step {
  model_name: "add" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} }
"""


def num_fetched(bucket: Bucket, name: str) -> int:
    """How often objects of a model were asked for."""
    return sum(f"/models/{name}/" in path for path in bucket.faults.seen)


async def test_what_nobody_loads_is_not_fetched(
    bucket: Bucket, tmp_path: Path, loads: Loads
) -> None:
    bucket.put_all({"large/1/model.onnx": b"large", "large/config.pbtxt": b""})
    control, repositories = await controlled(tmp_path, loads)
    assert sorted(repositories.unfetched().values()) == ["add", "large"]
    assert sorted(repositories.scan().models) == ["other"]
    await control.load("add", None)
    assert loads.loaded == [b"first"]
    assert (num_fetched(bucket, "add"), num_fetched(bucket, "large")) == (1, 0)
    await repositories.close()


async def test_an_ensemble_brings_what_it_is_made_of(
    bucket: Bucket, tmp_path: Path, loads: Loads
) -> None:
    bucket.put_all({"all/config.pbtxt": ENSEMBLE, "all/1/model.onnx": b"", "large/1/m": b"large"})
    control, repositories = await controlled(tmp_path, loads)
    await control.load("all", None)
    assert loads.loaded == [b"first", b""]
    assert sorted(repositories.unfetched().values()) == ["large"]
    snapshot = await control.completed(["all"], repositories.scan())
    assert {"add", "all"} <= snapshot.models.keys()
    await repositories.close()


async def test_what_is_named_at_the_start_is_fetched_then(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("large/1/model.onnx", b"large")
    settings = settings_of(tmp_path, model_control_mode="explicit", load_model=("large",))
    repositories = await fetched(settings)
    assert sorted(repositories.scan().models) == ["large", "other"]
    assert sorted(repositories.unfetched().values()) == ["add"]
    repositories.give_up({"large"})
    await repositories.refresh({"add"})
    assert sorted(repositories.scan().models) == ["add", "other"]
    await repositories.close()


async def test_a_name_that_nobody_has_is_not_kept(
    bucket: Bucket, tmp_path: Path, loads: Loads
) -> None:
    control, repositories = await controlled(tmp_path, loads)
    with pytest.raises(InvalidRequest, match="did you mean"):
        await control.load("adds", None)
    assert repositories._chosen.names == frozenset()
    await repositories.close()


async def test_a_model_that_does_not_come_is_shown_with_the_reason(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put_all({"evil/1/x": b"a file", "evil/1/x/y": b"and a folder"})
    repositories = await fetched(settings_of(tmp_path))
    found = repositories.scan().models
    assert sorted(found) == ["add", "evil", "other"]
    assert found["evil"].is_stranger
    assert "cannot be a file" in found["evil"].advice
    await repositories.close()


@pytest.mark.parametrize("given", ["add=x", "nobody=x"])
def test_a_config_is_for_a_model_of_a_hub_or_registry(
    bucket: Bucket, tmp_path: Path, given: str
) -> None:
    with pytest.raises(RepositoryUnreadableError, match=r"no address of a hub or registry has"):
        Repositories(settings_of(tmp_path, remote_config=(given,)), AT_ONCE)
