"""Buckets as sources: a real S3 server, and Google's and Azure's protocol, with their faults."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_site import BUCKET, KEYS, Bucket, s3_bucket, small_bucket

from trivet.server.remote.addresses import open_source
from trivet.server.remote.source import Changed, RemoteError, Source, Unreachable
from trivet.server.settings import Settings

BODY = bytes(range(256)) * 4096
"""A megabyte."""


@pytest.fixture(scope="module")
def store() -> Iterator[Bucket]:
    with s3_bucket() as opened:
        opened.put_all({"add/1/model.onnx": BODY, "add/config.pbtxt": b"config"})
        yield opened


@pytest.fixture
def bucket(store: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    store.faults.__init__()  # type: ignore[misc]  # as new
    return store


def source_of(bucket: Bucket) -> Source:
    return open_source(bucket.s3, Settings())


def fetch(source: Source, path: str, into: Path, at: int = 0) -> None:
    for _ in source.fetch(path, source.listing()[path], into, at):
        pass


def test_a_listing_has_what_lies_below_the_prefix(bucket: Bucket) -> None:
    source = source_of(bucket)
    assert {path: stamp.size for path, stamp in source.listing().items()} == {
        "add/1/model.onnx": len(BODY),
        "add/config.pbtxt": 6,
    }
    assert source.listing() == source.listing()
    assert source.address == bucket.s3


def test_a_fetch_goes_on_from_an_offset(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(BODY[:1000])
    fetch(source_of(bucket), "add/1/model.onnx", tmp_path / "part", 1000)
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_file_that_has_changed_since_it_was_listed_is_told_apart(
    bucket: Bucket, tmp_path: Path
) -> None:
    source = source_of(bucket)
    bucket.put("other/1/x", b"before")
    stamp = source.listing()["other/1/x"]
    bucket.put("other/1/x", b"after!")
    with pytest.raises(Changed):
        next(source.fetch("other/1/x", stamp, tmp_path / "part", 0))
    bucket.delete("other/1/x")
    with pytest.raises(Changed):
        next(source.fetch("other/1/x", stamp, tmp_path / "part", 0))


def test_a_connection_that_breaks_in_the_middle_costs_no_byte(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.faults.cuts = [300_000]
    fetch(source_of(bucket), "add/1/model.onnx", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY
    assert [each for each in bucket.faults.seen if "bytes=" in each]


def test_a_service_that_throttles_is_one_to_wait_for(bucket: Bucket) -> None:
    bucket.faults.refusals = [(503, "SlowDown")] * 5
    with pytest.raises(Unreachable, match=r"overloaded or out of order .503 SlowDown"):
        source_of(bucket).listing()


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        ((403, "AccessDenied"), r"may not be read.*403 AccessDenied.*set AWS_ACCESS_KEY_ID"),
        ((400, "ExpiredToken"), r"may not be read.*400 ExpiredToken"),
        ((404, "NoSuchBucket"), r"there is no bucket 'bucket'"),
        ((301, "PermanentRedirect"), r"in another region.*set AWS_REGION"),
    ],
)
def test_a_refusal_says_what_to_do(bucket: Bucket, refusal: tuple[int, str], text: str) -> None:
    bucket.faults.refusals = [refusal]
    with pytest.raises(RemoteError, match=text) as raised:
        source_of(bucket).listing()
    assert not isinstance(raised.value, Unreachable)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)


def test_a_machine_without_credentials_is_told_how_to_give_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", bucket.url)
    bucket.faults.refusals = [(404, "NoRole")]
    with pytest.raises(RemoteError, match=r"without credentials.*AWS_SKIP_SIGNATURE=true"):
        source_of(bucket).listing()


def test_a_profile_of_aws_is_taken(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "team")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[team]\naws_access_key_id = of-the-team\naws_secret_access_key = x\n"
    )
    bucket.faults.needs = "Credential=of-the-team/"
    assert source_of(bucket).listing()


def test_wrong_keys_are_told_without_showing_them(bucket: Bucket) -> None:
    bucket.faults.needs = "Credential=another/"
    with pytest.raises(RemoteError, match="403 InvalidAccessKeyId") as raised:
        source_of(bucket).listing()
    assert not any(value in str(raised.value) for value in KEYS.values())


def test_nobody_there_is_one_to_wait_for(bucket: Bucket) -> None:
    source = open_source("s3://127.0.0.1:9/bucket/models", Settings())
    with pytest.raises(Unreachable, match=r"s3://127.0.0.1:9/bucket/models cannot be reached"):
        source.listing()


def test_a_name_that_the_client_cannot_read_hides_no_others(bucket: Bucket) -> None:
    bucket.put("evil/1/../x", b"x")
    bucket.put("odd/1//x", b"x")
    found = source_of(bucket).listing()
    bucket.delete("evil/1/../x")
    bucket.delete("odd/1//x")
    assert found.keys() == {
        "add/1/model.onnx",
        "add/config.pbtxt",
        "evil/1/../",
        "odd/1//",
    }


# -- the other two -----------------------------------------------------------------------------


@pytest.fixture(params=["gs", "as"])
def small(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[Bucket, Source]]:
    kind: str = request.param
    with small_bucket(kind) as opened:
        credentials = tmp_path / "credentials.json"
        monkeypatch.setenv("TRITON_CLOUD_CREDENTIAL_PATH", str(credentials))
        account = tmp_path / "account.json"
        account.write_text(
            json.dumps(
                {
                    "gcs_base_url": opened.url,
                    "disable_oauth": True,
                    "client_email": "",
                    "private_key": "",
                    "private_key_id": "",
                }
            )
        )
        credentials.write_text(
            json.dumps(
                {
                    "gs": {"": "/not/this/one", f"gs://{BUCKET}": str(account)},
                    "as": {"": {"account_str": "account", "account_key": "a2V5"}},
                }
            )
        )
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", opened.url)
        opened.put_all({"add/1/a b.onnx": BODY, "add/config.pbtxt": b"config"})
        address = {"gs": f"gs://{BUCKET}/models", "as": f"as://account/{BUCKET}/models"}[kind]
        yield opened, open_source(address, Settings())


def test_google_s_and_azure_s_buckets_are_read_alike(
    small: tuple[Bucket, Source], tmp_path: Path
) -> None:
    bucket, source = small
    bucket.faults.refusals = [(503, "ServerBusy")]
    bucket.faults.cuts = [300_000]
    assert source.listing().keys() == {"add/1/a b.onnx", "add/config.pbtxt"}
    fetch(source, "add/1/a b.onnx", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == BODY
    (tmp_path / "half").write_bytes(BODY[:500])
    fetch(source, "add/1/a b.onnx", tmp_path / "half", 500)
    assert (tmp_path / "half").read_bytes() == BODY
    stamp = source.listing()["add/config.pbtxt"]
    bucket.put("add/config.pbtxt", b"newer!")
    with pytest.raises(Changed):
        next(source.fetch("add/config.pbtxt", stamp, tmp_path / "part", 0))
    bucket.faults.refusals = [(403, "AuthorizationFailure")]
    with pytest.raises(RemoteError, match="may not be read with these credentials"):
        source.listing()
