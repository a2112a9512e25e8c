"""Buckets: s3://, gs:// and as://, by obstore, one client for the three.

obstore tries a single request again by itself, a few times; how long a source is waited for is
decided in `fetching.py`.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError, InvalidPathError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from trivet.server.remote.bucket_address import BucketAddress, parse
from trivet.server.remote.bucket_errors import invalid_key, told
from trivet.server.remote.credentials import Options, credentials_of
from trivet.server.remote.source import CHUNK_BYTES, Changed, Doubtful, Source, Stamp
from trivet.server.settings import Settings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

PAGE = 1000
"""Objects of a listing at a time, as services give them."""
CLIENT: "ClientConfig" = {
    "connect_timeout": "5s",
    "read_timeout": "30s",  # without a byte
    "timeout": "7days",  # of a whole answer, which may be a file of any size
}
RETRIES: "RetryConfig" = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=60),
}
REGION = "us-east-1"
"""Where nothing says it: what services beside Amazon's take."""


def open_bucket(address: str, settings: Settings) -> Source:  # noqa: ARG001 - an OpenSource
    """Raises RemoteError."""
    parsed = parse(address)
    try:
        return Bucket(parsed, _store(parsed, credentials_of(parsed.text, os.environ)))
    except (BaseError, ValueError, OSError) as error:
        raise told(error, parsed) from None


class Bucket:
    """A Source: the objects below a prefix."""

    def __init__(self, address: BucketAddress, store: "S3Store | GCSStore | AzureStore") -> None:
        self.address = address.text
        self._parsed = address
        self._store = store

    def listing(self) -> dict[str, Stamp]:
        """An object whose name obstore cannot read hides those beside it: its folder is then listed
        as that object alone, with all its folders above, and whoever reads names refuses it."""
        try:
            return {
                each["path"]: self._stamp(each)
                for page in obstore.list(self._store, chunk_size=PAGE)
                for each in page
            }
        except InvalidPathError:
            return self._listing_below(None)
        except (BaseError, OSError) as error:
            raise told(error, self._parsed) from None

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:
        """As the protocol says."""
        options: GetOptions = {"range": {"offset": at}} if at else {}
        etag = stamp.tag.partition(" ")[0]
        if etag.startswith('"'):
            options["if_match"] = etag
        try:
            answer = obstore.get(self._store, path, options=options)
            if self._stamp(answer.meta) != stamp:
                raise Changed
            with into.open("ab") as file:
                for chunk in answer.stream(min_chunk_size=CHUNK_BYTES):
                    file.write(chunk)
                    yield len(chunk)
        except (PreconditionError, FileNotFoundError):
            raise Changed from None
        except BaseError as error:
            raise told(error, self._parsed, path) from None

    def _stamp(self, found: "ObjectMeta") -> Stamp:
        """Azure's ETag is a time: two files may have the same."""
        etag = found["e_tag"]
        if etag and not etag.endswith('"'):
            etag = f'"{etag}"'  # listings of Azure leave them out
        tag = etag or found["last_modified"].isoformat()
        is_unique = etag and self._parsed.scheme != "as"
        return Stamp(found["size"], tag if is_unique else f"{tag} {found['path']}")

    def _listing_below(self, folder: str | None) -> dict[str, Stamp]:
        try:
            found = obstore.list_with_delimiter(self._store, folder)
        except InvalidPathError as error:
            key = invalid_key(error, self._parsed)
            if folder is None:
                raise Doubtful(
                    f"{self.address}: object {key!r} cannot be a file, and hides all others; "
                    "rename or remove it"
                ) from None
            return {key: Stamp(0, "")}
        except (BaseError, OSError) as error:
            raise told(error, self._parsed) from None
        files = {each["path"]: self._stamp(each) for each in found["objects"]}
        for below in found["common_prefixes"]:
            files |= self._listing_below(below)
        return files


def _store(address: BucketAddress, options: Options) -> "S3Store | GCSStore | AzureStore":
    # Only an address or a variable that says http:// gets it.
    client: ClientConfig = {**CLIENT, "allow_http": True}
    prefix = address.prefix or None
    chosen: Any = {**_defaults(address), **options}  # obstore's names, by scheme
    if address.scheme == "gs":
        return GCSStore(
            address.bucket,
            prefix=prefix,
            config=chosen,
            client_options=client,
            retry_config=RETRIES,
        )
    opens = AzureStore if address.scheme == "as" else S3Store
    return opens(
        address.bucket, prefix=prefix, config=chosen, client_options=client, retry_config=RETRIES
    )


def _defaults(address: BucketAddress) -> Options:
    """What the address says, and what has to be said if nothing does."""
    if address.scheme == "as":
        return {"account_name": address.account}
    if address.scheme == "gs":
        return {}
    found = {"endpoint": address.endpoint} if address.endpoint else {}
    if not any(map(os.environ.get, ("AWS_REGION", "AWS_DEFAULT_REGION"))):
        found["region"] = REGION
    return found
