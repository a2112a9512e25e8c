"""Addresses of repositories, as operators write them, and whose keys open them."""

import json
import sys
from pathlib import Path

import pytest

from trivet.server.remote.addresses import open_source
from trivet.server.remote.bucket_address import BucketAddress, parse
from trivet.server.remote.credentials import credentials_of
from trivet.server.remote.source import RemoteError
from trivet.server.settings import Settings


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket", BucketAddress("s3", "bucket", "")),
        ("s3://bucket/a/b/", BucketAddress("s3", "bucket", "a/b")),
        ("s3://host:9000/bucket/a", BucketAddress("s3", "bucket", "a", "http://host:9000")),
        ("s3://https://host/bucket//a", BucketAddress("s3", "bucket", "a", "https://host")),
        ("s3://https://host:1/bucket", BucketAddress("s3", "bucket", "", "https://host:1")),
        ("s3://http://host/bucket", BucketAddress("s3", "bucket", "", "http://host")),
        ("s3://[::1]:9000/bucket", BucketAddress("s3", "bucket", "", "http://[::1]:9000")),
        ("gs://bucket/a", BucketAddress("gs", "bucket", "a")),
        ("as://account/container/a", BucketAddress("as", "container", "a", "", "account")),
    ],
)
def test_tritons_forms_are_read(address: str, expected: BucketAddress) -> None:
    assert parse(address) == expected
    assert parse(expected.text) == expected


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("s3://", "give s3://BUCKET/PREFIX"),
        ("s3://host:9000", "give s3://BUCKET/PREFIX"),
        ("gs:///", "give gs://BUCKET/PREFIX"),
        ("as://account", "give as://ACCOUNT/CONTAINER/PREFIX"),
        ("s3://bucket/../other", "is no address"),
        ("s3://https://key:secret@host/bucket", "no place for credentials"),
        ("s3://key:secret@bucket/models", "no place for credentials"),
        ("gs://secret@bucket", "no place for credentials"),
        ("as://account:secret@host", "no place for credentials"),
        ("https://key:secret@host/models", "'https://' is not known"),
        ("mlflow://secret@host/fraud", "does not have the form"),
        ("ftp://host/models", "'ftp://' is not known; there are folders and s3://"),
    ],
)
def test_an_address_that_is_none_says_what_is(address: str, text: str) -> None:
    with pytest.raises(RemoteError, match=text) as raised:
        open_source(address, Settings())
    assert "secret" not in str(raised.value).replace("SECRET", "")


def test_a_missing_client_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "trivet.server.remote.buckets", raising=False)
    with pytest.raises(RemoteError, match=r"pip install 'trivet\[remote\]'"):
        open_source("s3://bucket", Settings())


# -- credentials -------------------------------------------------------------------------------


def triton_file(folder: Path, document: object) -> dict[str, str]:
    """An environment that names the file."""
    file = folder / "credentials.json"
    file.write_text(json.dumps(document))
    return {"TRITON_CLOUD_CREDENTIAL_PATH": str(file), "HOME": str(folder)}


S3_FILE = {
    "s3": {
        "": {"key_id": "default", "secret_key": "x"},
        "s3://models": {"key_id": "models", "secret_key": "x", "region": "eu-west-1"},
        "s3://models/team": {"key_id": "team", "secret_key": "x", "session_token": "t"},
    }
}


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("s3://other", "default"),
        ("s3://models", "models"),
        ("s3://models/x", "models"),
        ("s3://models/team/a", "team"),
        ("s3://models2", "default"),
        ("s3://models/teams", "models"),
    ],
)
def test_the_longest_beginning_in_tritons_file_decides(
    tmp_path: Path, address: str, key: str
) -> None:
    found = credentials_of(address, triton_file(tmp_path, S3_FILE))
    assert found["access_key_id"] == key


def test_every_kind_of_entry_is_read(tmp_path: Path) -> None:
    environment = triton_file(
        tmp_path,
        {
            "gs": {"gs://bucket": "/keys/google.json"},
            "as": {"": {"account_str": "", "account_key": "azure"}},
        },
    )
    assert credentials_of("gs://bucket/a", environment) == {"service_account": "/keys/google.json"}
    assert credentials_of("as://account/c", environment) == {"account_key": "azure"}
    assert credentials_of("gs://other", environment) == {}


def test_a_profile_in_tritons_file_is_looked_up(tmp_path: Path) -> None:
    environment = triton_file(tmp_path, {"s3": {"": {"profile": "team"}}})
    credentials, config = tmp_path / "credentials", tmp_path / "config"
    credentials.write_text("[team]\naws_access_key_id = A\naws_secret_access_key = B\n")
    config.write_text("[profile team]\nregion = eu-central-1\n")
    environment |= {
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_CONFIG_FILE": str(config),
    }
    assert credentials_of("s3://bucket", environment) == {
        "access_key_id": "A",
        "secret_access_key": "B",
        "region": "eu-central-1",
    }


def test_the_environment_comes_before_aws_s_files(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "A", "AWS_SHARED_CREDENTIALS_FILE": "/not/there"}
    assert credentials_of("s3://bucket", environment) == {}
    assert credentials_of("as://a/c", {"AZURE_STORAGE_KEY": "k"}) == {"account_key": "k"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is no JSON"),
        ('{"s3": {"": "a string"}}', "must be an object"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_says_which(
    tmp_path: Path, content: str | None, text: str
) -> None:
    file = tmp_path / "credentials.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RemoteError, match=f"TRITON_CLOUD_CREDENTIAL_PATH.*{text}"):
        credentials_of("s3://bucket", {"TRITON_CLOUD_CREDENTIAL_PATH": str(file)})
