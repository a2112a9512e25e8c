"""Whose keys open a bucket: Triton's credential file, then AWS's files; what the environment has,
obstore finds itself. Keys are handed on and never shown."""

import configparser
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivet.server.remote.source import RemoteError

TRITON_FILE = "TRITON_CLOUD_CREDENTIAL_PATH"
"""Triton's variable: a JSON file, by scheme and then by the beginning of an address."""
TRITON_NAMES = {
    "s3": {
        "key_id": "access_key_id",
        "secret_key": "secret_access_key",
        "region": "region",
        "session_token": "session_token",
    },
    "as": {"account_key": "account_key"},
}
"""What the file calls things, and obstore."""
_AWS_NAMES = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
}
_AWS_OTHERS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""Any of them says where credentials come from instead of AWS's files."""

Options = dict[str, str]
"""Configuration of a store, in obstore's words."""


def credentials_of(address: str, environment: Mapping[str, str]) -> Options:
    """What has to be said beside the environment. Raises RemoteError."""
    scheme = address.partition("://")[0]
    path = environment.get(TRITON_FILE, "")
    entry = _entry(Path(path), scheme, address) if path else None
    if entry is None:
        return _from_environment(scheme, environment)
    if scheme == "gs":
        return {"service_account": str(entry)} if entry else {}
    if not isinstance(entry, Mapping):
        raise RemoteError(f"{path} ({TRITON_FILE}): the entry for {address} must be an object")
    found = {
        ours: str(entry[theirs])
        for theirs, ours in TRITON_NAMES[scheme].items()
        if entry.get(theirs)
    }
    profile = str(entry.get("profile") or "")
    if scheme == "s3" and profile and "access_key_id" not in found:
        found = {**_aws_profile(profile, environment), **found}
    return found


def _from_environment(scheme: str, environment: Mapping[str, str]) -> Options:
    if scheme == "as" and environment.get("AZURE_STORAGE_KEY"):
        return {"account_key": environment["AZURE_STORAGE_KEY"]}
    if scheme == "s3" and not any(map(environment.get, _AWS_OTHERS)):
        return _aws_profile(environment.get("AWS_PROFILE", "default"), environment)
    return {}


def _entry(file: Path, scheme: str, address: str) -> Any:
    """The entry with the longest beginning of the address; None if there is none."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RemoteError(f"{file} ({TRITON_FILE}) cannot be read: {error.strerror}") from None
    except ValueError:
        raise RemoteError(f"{file} ({TRITON_FILE}) is no JSON") from None
    entries = document.get(scheme) if isinstance(document, Mapping) else None
    if not isinstance(entries, Mapping):
        return None
    fitting = [each for each in entries if _begins(address, str(each))]
    return entries[max(fitting, key=len)] if fitting else None


def _begins(address: str, beginning: str) -> bool:
    whole = beginning.rstrip("/")
    return not whole or address == whole or address.startswith(f"{whole}/")


def _aws_profile(profile: str, environment: Mapping[str, str]) -> Options:
    """From the files that `aws configure` writes."""
    credentials = environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = environment.get("AWS_CONFIG_FILE", "~/.aws/config")
    found: Options = {}
    for file, section in (
        (config, profile if profile == "default" else f"profile {profile}"),
        (credentials, profile),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(file).expanduser(), encoding="utf-8")
        except (OSError, RuntimeError, UnicodeError, configparser.Error):
            raise RemoteError(f"'{file}' is no file of AWS profiles that can be read") from None
        if parser.has_section(section):
            values = dict(parser.items(section))
            found |= {ours: values[name] for name, ours in _AWS_NAMES.items() if values.get(name)}
    regions = ("AWS_REGION", "AWS_DEFAULT_REGION")
    if any(map(environment.get, regions)):
        found.pop("region", None)
    return found
