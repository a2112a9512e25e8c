"""An MLflow tracking server on this machine: the REST paths that its client asks about models, and
the artifacts that it hands on.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REST, ARTIFACTS = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts"
Answer = tuple[int, Any]
MANIFEST = b"""
flavors:
  onnx: {data: model.onnx, onnx_version: 1.19.0}
  python_function: {data: model.onnx, loader_module: mlflow.onnx}
"""


def logged_onnx(model: bytes) -> dict[str, bytes]:
    """What MLflow logs of an ONNX model, as far as a server needs it."""
    return {"MLmodel": MANIFEST, "model.onnx": model}


@dataclass
class Registered:
    """A version: its files, by path, lie with the tracking server unless `source` is elsewhere."""

    files: Mapping[str, bytes]
    source: str = ""
    status: str = "READY"
    created: int = 1_700_000_000_000


@dataclass
class FakeRegistry:
    """Its state; the tests change it while it answers."""

    models: dict[str, dict[int, Registered]] = field(default_factory=dict)
    aliases: dict[tuple[str, str], int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refusal: Answer | None = None
    breaks_after: int | None = None
    """How many bytes of a file are sent before the connection breaks, once."""
    listed_besides: list[dict[str, Any]] = field(default_factory=list)
    is_gone: bool = False
    """Whether connections are closed without an answer."""
    num_unanswered: int = 0
    uri: str = ""

    def register(self, name: str, files: Mapping[str, bytes], **more: Any) -> int:
        """A new version, under the next number."""
        versions = self.models.setdefault(name, {})
        number = max(versions, default=0) + 1
        versions[number] = Registered(files, **more)
        return number

    def answer(self, path: str, asked: Mapping[str, str]) -> Answer:
        name = asked.get("name", "")
        if path == "model-versions/search":
            name = asked["filter"].removeprefix("name = '").removesuffix("'")
            found = sorted(self.models.get(name, {}), reverse=True)[: int(asked["max_results"])]
            return 200, {"model_versions": [self._version(name, number) for number in found]}
        if name not in self.models:
            return _no("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={name} not found")
        if path == "registered-models/get":
            return 200, {"registered_model": {"name": name}}
        if path == "registered-models/alias":
            number = self.aliases.get((name, asked["alias"]), 0)
            if not number:
                return _no("INVALID_PARAMETER_VALUE", "Registered model alias not found.")
            return 200, {"model_version": self._version(name, number)}
        number = int(asked["version"])
        if number not in self.models[name]:
            return _no("RESOURCE_DOES_NOT_EXIST", f"Model Version {number} not found")
        if path == "model-versions/get":
            return 200, {"model_version": self._version(name, number)}
        assert path == "model-versions/get-download-uri", path
        return 200, {"artifact_uri": self._place(name, number)}

    def _place(self, name: str, number: int) -> str:
        return self.models[name][number].source or f"mlflow-artifacts:/{name}/{number}"

    def _version(self, name: str, number: int) -> dict[str, Any]:
        version = self.models[name][number]
        return {
            "name": name,
            "version": str(number),
            "creation_timestamp": version.created,
            "source": self._place(name, number),
            "status": version.status,
        }

    def files_in(self, folder: str) -> list[dict[str, Any]]:
        """What the artifact API lists of a folder."""
        name, number, *inside = folder.strip("/").split("/")
        files = self.models[name][int(number)].files
        prefix = "".join(f"{each}/" for each in inside)
        found: dict[str, dict[str, Any]] = {}
        for path, content in files.items():
            first, slash, _ = path.removeprefix(prefix).partition("/")
            if not path.startswith(prefix):
                continue
            size = {} if slash else {"file_size": len(content)}
            found[first] = {"path": first, "is_dir": bool(slash), **size}
        return [*found.values(), *(self.listed_besides if not prefix else [])]

    def content(self, path: str) -> bytes:
        name, number, file = path.strip("/").split("/", 2)
        return self.models[name][int(number)].files[file]


def _no(code: str, message: str) -> Answer:
    return 404 if code == "RESOURCE_DOES_NOT_EXIST" else 400, {
        "error_code": code,
        "message": message,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: FakeRegistry

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        registry = self.registry
        if registry.is_gone:
            registry.num_unanswered += 1
            self.close_connection = True
            return
        registry.asked.append(self.path)
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if registry.refusal is not None:
            self.send(registry.refusal)
        elif parts.path.startswith(REST):
            self.send(registry.answer(parts.path.removeprefix(REST), asked))
        elif parts.path == ARTIFACTS:
            self.send((200, {"files": registry.files_in(asked["path"])}))
        else:
            self.send_file(registry.content(unquote(parts.path.removeprefix(ARTIFACTS))))

    def send(self, answer: Answer) -> None:
        status, document = answer
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self._begin(status, len(body))
        self.wfile.write(body)

    def send_file(self, content: bytes) -> None:
        """Whole, as MLflow's server does whatever range is asked for."""
        self._begin(200, len(content))
        if self.registry.breaks_after is not None:
            content = content[: self.registry.breaks_after]
            self.registry.breaks_after = None
            self.close_connection = True
        self.wfile.write(content)

    def _begin(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("content-length", str(length))
        self.end_headers()


@contextmanager
def open_registry() -> Iterator[FakeRegistry]:
    """A registry that answers until the end."""
    registry = FakeRegistry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        registry.uri = f"http://127.0.0.1:{server.server_address[1]}"
        yield registry
        server.shutdown()
        thread.join()
