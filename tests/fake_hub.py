"""A hub on this machine: the paths that are asked of huggingface.co for a model, with its headers.

Large files lie at another origin, to which the hub redirects, as its storage does.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".gguf", ".onnx", ".bin")
TOKEN = "hf_" + "a" * 34


@dataclass
class Commit:
    sha: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A model: what its branches are, and who may read it."""

    branches: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A commit that holds these files alone; returns its hash."""
        told = repr((sorted(files.items()), len(self.commits)))
        sha = hashlib.sha1(told.encode()).hexdigest()
        self.branches[branch] = self.commits[sha] = Commit(sha, dict(files))
        return sha

    def commit(self, revision: str) -> Commit | None:
        return self.branches.get(revision) or self.commits.get(revision)


@dataclass
class Refusal:
    """What the hub answers in place of what was asked."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Asked:
    path: str
    range: str
    authorization: str


class FakeHub:
    """Its state; the tests change it while it answers."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []
        self.at_storage: list[Asked] = []
        self.refusals: dict[str, Refusal] = {}
        """By how the asked path begins."""
        self.breaks_after: int | None = None
        """How many bytes of a large file are sent before the connection breaks, once."""
        self.ignores_ranges = False
        self.storage_status = 200
        self.lies_about_size = 0
        """So many bytes more are listed than there are."""
        self.is_gone = False
        """Whether connections are closed without an answer."""
        self.num_unanswered = 0
        self.lists_sizes = True
        """Mirrors may not."""
        self.extra_paths: tuple[str, ...] = ()
        self.endpoint = ""
        self.storage = ""

    def repo(self, name: str) -> Repo:
        return self.repos.setdefault(name, Repo())

    def described(self, commit: Commit) -> dict[str, Any]:
        """What /api/models says with ?blobs=true."""
        paths = [*commit.files, *self.extra_paths]
        siblings = [self._sibling(path, commit.files.get(path, b"")) for path in paths]
        return {"id": "any", "sha": commit.sha, "private": False, "siblings": siblings}

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        size = len(content) + self.lies_about_size
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if not self.lists_sizes:
            return {"rfilename": path}
        told: dict[str, Any] = {"rfilename": path, "size": size, "blobId": blob}
        if path.endswith(LFS):
            sha256 = hashlib.sha256(content).hexdigest()
            told["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 130}
        return told


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        headers = self.headers
        asked = Asked(self.path, headers.get("range", ""), headers.get("authorization", ""))
        if self.hub.is_gone:
            self.hub.num_unanswered += 1
            self.close_connection = True
            return
        self.seen(asked)
        self.answer(asked)

    def do_HEAD(self) -> None:
        self.do_GET()

    def seen(self, asked: Asked) -> None:
        raise NotImplementedError

    def answer(self, asked: Asked) -> None:
        raise NotImplementedError

    def send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_part(self, asked: Asked, body: bytes, headers: Mapping[str, str]) -> None:
        """The file, or its rest where that is asked for."""
        if not asked.range or self.hub.ignores_ranges:
            return self.send(200, self.cut(body), {**headers, "content-length": str(len(body))})
        begin = int(asked.range.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(body):
            return self.send(416, b"", {"content-range": f"bytes */{len(body)}"})
        place = {"content-range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}
        rest = body[begin:]
        length = {"content-length": str(len(rest))}
        return self.send(206, self.cut(rest), {**headers, **place, **length})

    def cut(self, body: bytes) -> bytes:
        if self.hub.breaks_after is None:
            return body
        most, self.hub.breaks_after = self.hub.breaks_after, None
        self.close_connection = True
        return body[:most]


class _HubHandler(_Handler):
    def seen(self, asked: Asked) -> None:
        self.hub.asked.append(asked)

    def answer(self, asked: Asked) -> None:
        for begin, refusal in self.hub.refusals.items():
            if asked.path.startswith(begin):
                return self.send(refusal.status, refusal.body, refusal.headers)
        parts = urlsplit(asked.path)
        if parts.path.startswith("/api/models/"):
            return self.describe(asked, parts.path.removeprefix("/api/models/"), parts.query)
        return self.resolve(asked, parts.path.removeprefix("/"))

    def describe(self, asked: Asked, path: str, query: str) -> None:
        name, _, revision = path.partition("/revision/")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.is_private and not asked.authorization):
            # As the hub has it: nobody learns what is private.
            code = "RepoNotFound"
            return self.refuse(401, code, "Invalid username or password.")
        commit = repo.commit(unquote(revision) or "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        assert parse_qs(query) == {"blobs": ["true"]}
        return self.send(200, json.dumps(self.hub.described(commit)).encode(), {})

    def resolve(self, asked: Asked, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        repo = self.hub.repos.get(name)
        if repo is None:
            return self.refuse(401, "RepoNotFound", "Invalid username or password.")
        if repo.is_gated:
            status = 403 if asked.authorization else 401
            return self.refuse(status, "GatedRepo", f"Access to model {name} is restricted.")
        commit = repo.commit(revision)
        content = commit.files.get(unquote(file)) if commit else None
        if commit is None or content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        told = {"x-repo-commit": commit.sha, "etag": '"' + hashlib.sha1(content).hexdigest() + '"'}
        if not file.endswith(LFS):
            return self.send_part(asked, content, told)
        sha256 = hashlib.sha256(content).hexdigest()
        place = f"{self.hub.storage}/{name}/{commit.sha}/{file}?signature=secret"
        linked = {"x-linked-etag": f'"{sha256}"', "x-linked-size": str(len(content))}
        return self.send(302, b"", {**told, **linked, "location": place, "x-xet-hash": sha256})

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send(status, b"", {"x-error-code": code, "x-error-message": message})


class _StorageHandler(_Handler):
    def seen(self, asked: Asked) -> None:
        self.hub.at_storage.append(asked)

    def answer(self, asked: Asked) -> None:
        if self.hub.storage_status != 200:
            return self.send(self.hub.storage_status, b"<Error/>", {})
        org, model, sha, file = urlsplit(asked.path).path.removeprefix("/").split("/", 3)
        content = self.hub.repos[f"{org}/{model}"].commits[sha].files[unquote(file)]
        return self.send_part(asked, content, {})


@contextmanager
def open_hub() -> Iterator[FakeHub]:
    """A hub that answers until the end."""
    hub = FakeHub()
    with _served(_HubHandler, hub) as hub.endpoint, _served(_StorageHandler, hub) as hub.storage:
        yield hub


@contextmanager
def _served(kind: type[_Handler], hub: FakeHub) -> Iterator[str]:
    handler = type(kind.__name__, (kind,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
