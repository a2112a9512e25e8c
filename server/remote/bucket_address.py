"""Addresses of buckets, in the forms that Triton has. Pure.

s3://bucket/prefix                        Amazon, or what AWS_ENDPOINT_URL says
s3://host:port/bucket/prefix              another service, over HTTP
s3://https://host[:port]/bucket/prefix    another service, over HTTPS
gs://bucket/prefix
as://account/container/prefix
"""

import re
from dataclasses import dataclass

from trivet.server.remote.source import RemoteError

FORMS = {
    "s3": "s3://BUCKET/PREFIX, s3://HOST:PORT/BUCKET/PREFIX or s3://https://HOST/BUCKET/PREFIX",
    "gs": "gs://BUCKET/PREFIX",
    "as": "as://ACCOUNT/CONTAINER/PREFIX",
}
HOW_TO_SAY = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
    "AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "as": "set AZURE_STORAGE_KEY, or AZURE_SKIP_SIGNATURE=true for a public container",
}
"""Whose keys open it."""
_SERVICE = re.compile(r"(?:(https?)://)?([^/]+)(?:/+(.*))?")


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """What is said about where a repository lies."""

    scheme: str
    bucket: str
    """The container, in Azure's words."""
    prefix: str
    """The folder in it, without slashes at its ends; empty for all."""
    endpoint: str = ""
    """Of S3: another service than Amazon's."""
    account: str = ""
    """Of Azure."""

    @property
    def text(self) -> str:
        """As an operator writes it, each the same however many slashes there were."""
        has_port = re.search(r":\d+$", self.endpoint) is not None
        service = self.endpoint.removeprefix("http://") if has_port else self.endpoint
        parts = (service, self.account, self.bucket, self.prefix)
        return f"{self.scheme}://{'/'.join(each for each in parts if each)}"


def parse(address: str) -> BucketAddress:
    """Raises RemoteError."""
    scheme, _, rest = address.partition("://")
    endpoint = ""
    service = _SERVICE.fullmatch(rest) if scheme == "s3" else None
    if service is not None and (service[1] or re.fullmatch(r".+:\d+", service[2])):
        endpoint = f"{service[1] or 'http'}://{service[2]}"
        rest = service[3] or ""
    names = [name for name in rest.split("/") if name]
    num_needed = 2 if scheme == "as" else 1
    if "@" in endpoint or any("@" in name for name in names[:num_needed]):
        raise RemoteError(
            f"a {scheme}:// address has no place for credentials: {HOW_TO_SAY[scheme]}"
        )
    if len(names) < num_needed or {".", ".."} & set(names):
        raise RemoteError(f"'{address}' is no address of a model repository: give {FORMS[scheme]}")
    account = names.pop(0) if scheme == "as" else ""
    return BucketAddress(scheme, names[0], "/".join(names[1:]), endpoint, account)
