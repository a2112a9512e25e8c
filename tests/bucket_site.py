"""Object stores on this machine: a real S3 server, and small ones that speak Google's and Azure's
protocol as far as a reader needs it. Each breaks as it is told to."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

KEYS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test"}
BUCKET = "bucket"


@dataclass
class Faults:
    """What happens to the next requests of readers, one each."""

    refusals: list[tuple[int, str]] = field(default_factory=list)
    """Status and code instead of an answer."""
    cuts: list[int] = field(default_factory=list)
    """Bytes of an object after which the connection breaks."""
    is_gone: bool = False
    """Whether the bucket has vanished."""
    needs: str = ""
    """What the Authorization header must hold."""
    before: list[Callable[[], None]] = field(default_factory=list)
    """Called before objects are given out."""
    seen: list[str] = field(default_factory=list)
    """Path and range of each request."""


class Faulty:
    """An application with faults in front of it."""

    def __init__(self, application: WSGIApplication, faults: Faults) -> None:
        self._application = application
        self._faults = faults

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        faults = self._faults
        query, user = environ.get("QUERY_STRING", ""), environ.get("HTTP_USER_AGENT", "")
        if environ["REQUEST_METHOD"] != "GET" or "Boto3" in user:
            return self._application(environ, start)
        faults.seen.append(f"{environ['PATH_INFO']} {environ.get('HTTP_RANGE', '')}".strip())
        if faults.needs not in environ.get("HTTP_AUTHORIZATION", ""):
            return _refuse(start, 403, "InvalidAccessKeyId")
        if faults.is_gone:
            return _refuse(start, 404, "NoSuchBucket")
        if faults.refusals:
            return _refuse(start, *faults.refusals.pop(0))
        is_object = "list" not in query
        if is_object and faults.before:
            faults.before.pop(0)()
        answer = self._application(environ, start)
        return _cut(answer, faults.cuts.pop(0)) if is_object and faults.cuts else answer


def _refuse(start: StartResponse, status: int, code: str) -> list[bytes]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start(f"{status} {code}", headers)
    return [body]


def _cut(answer: Iterable[bytes], at: int) -> Iterator[bytes]:
    for chunk in answer:
        yield chunk[:at]
        at -= len(chunk)
        if at <= 0:
            raise ConnectionAbortedError


@dataclass
class Bucket:
    """A store with one bucket, and how to write to it."""

    port: int
    faults: Faults
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def s3(self) -> str:
        """The address of the models in it, if it is S3's."""
        return f"s3://127.0.0.1:{self.port}/{BUCKET}/models"

    def put_all(self, files: dict[str, bytes]) -> None:
        for path, content in files.items():
            self.put(path, content)


@contextmanager
def served(application: WSGIApplication) -> Iterator[int]:
    """On a free port."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server: BaseWSGIServer = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def s3_bucket(name: str = BUCKET) -> Iterator[Bucket]:
    """A real S3 server with an empty bucket; paths are below `models/`."""
    faults = Faults()
    with served(Faulty(DomainDispatcherApplication(create_backend_app), faults)) as port:
        client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="writer",
            aws_secret_access_key="another-secret",
        )
        client.create_bucket(Bucket=name)
        yield Bucket(
            port,
            faults,
            lambda path, content: client.put_object(
                Bucket=name, Key=f"models/{path}", Body=content
            ),
            lambda path: client.delete_object(Bucket=name, Key=f"models/{path}"),
        )
        # What the server holds is the process's: the next one would find it.
        for each in client.list_objects_v2(Bucket=name).get("Contents", ()):
            client.delete_object(Bucket=name, Key=each["Key"])
        client.delete_bucket(Bucket=name)
        client.close()


class SmallStore:
    """Objects in memory, read by Google's XML API or Azure's."""

    def __init__(self, kind: str) -> None:
        self.objects: dict[str, bytes] = {}
        self._list = {"gs": _google_listing, "as": _azure_listing}[kind]

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if "comp" in query or "list-type" in query:
            return self._listing(query, start)
        raw = environ["PATH_INFO"].encode("latin-1").decode()
        name = unquote(raw).removeprefix(f"/{BUCKET}/")
        if name not in self.objects:
            return _refuse(start, 404, "NoSuchKey")
        return self._object(name, environ, start)

    def _listing(self, query: dict[str, list[str]], start: StartResponse) -> Iterable[bytes]:
        prefix = query.get("prefix", [""])[0]
        found = {name: body for name, body in self.objects.items() if name.startswith(prefix)}
        body = f"<?xml version='1.0' encoding='utf-8'?>{self._list(found)}".encode()
        start("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def _object(self, name: str, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        body, etag = self.objects[name], f'"{_etag(self.objects[name])}"'
        if environ.get("HTTP_IF_MATCH", etag) != etag:
            return _refuse(start, 412, "PreconditionFailed")
        asked = environ.get("HTTP_RANGE", environ.get("HTTP_X_MS_RANGE", ""))
        at = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = [
            ("Content-Length", str(len(body) - at)),
            ("ETag", etag),
            ("Last-Modified", MODIFIED),
            ("x-ms-blob-type", "BlockBlob"),
        ]
        if asked:
            headers.append(("Content-Range", f"bytes {at}-{len(body) - 1}/{len(body)}"))
        start("206 Partial Content" if asked else "200 OK", headers)
        return [body[at:]]


MODIFIED = "Mon, 30 Nov 2026 10:00:00 GMT"


def _etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _google_listing(objects: dict[str, bytes]) -> str:
    rows = "".join(
        f"<Contents><Key>{escape(name)}</Key><Size>{len(body)}</Size>"
        f"<LastModified>2026-11-30T10:00:00.000Z</LastModified>"
        f'<ETag>"{_etag(body)}"</ETag></Contents>'
        for name, body in objects.items()
    )
    return f"<ListBucketResult>{rows}</ListBucketResult>"


def _azure_listing(objects: dict[str, bytes]) -> str:
    rows = "".join(
        f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{MODIFIED}</Last-Modified>"
        f"<Etag>{_etag(body)}</Etag><Content-Length>{len(body)}</Content-Length>"
        f"<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType>"
        f"</Properties></Blob>"
        for name, body in objects.items()
    )
    return f"<EnumerationResults><Blobs>{rows}</Blobs><NextMarker /></EnumerationResults>"


@contextmanager
def small_bucket(kind: str) -> Iterator[Bucket]:
    """A store of "gs" or "as" with an empty bucket; paths are below `models/`."""
    store, faults = SmallStore(kind), Faults()
    with served(Faulty(store, faults)) as port:
        yield Bucket(
            port,
            faults,
            lambda path, content: store.objects.update({f"models/{path}": content}),
            lambda path: store.objects.__delitem__(f"models/{path}"),
        )
