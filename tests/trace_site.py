"""A collector of spans that listens on OTLP/HTTP, and the ensemble that tests trace."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from patience import patience
from serving import write_identity

ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [{ name: "IN" data_type: TYPE_FP32 dims: [ 16 ] }]
output [{ name: "OUT" data_type: TYPE_FP32 dims: [ 16 ] }]
ensemble_scheduling { step [
  { model_name: "first" model_version: -1
    input_map { key: "INPUT0" value: "IN" } output_map { key: "OUTPUT0" value: "middle" } },
  { model_name: "second" model_version: -1
    input_map { key: "INPUT0" value: "middle" } output_map { key: "OUTPUT0" value: "OUT" } }
] }
"""


@dataclass
class Collector:
    """What has come, decoded."""

    port: int = 0
    requests: list[service.ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait(self, found: Callable[["Collector"], bool]) -> None:
        """Polls until the spans are as wanted."""
        deadline = time.monotonic() + patience()
        while not found(self):
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.01)

    def named(self, name: str) -> Span:
        """The only span of a name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def children(self, parent: Span) -> list[str]:
        """The names of a span's children, in order of their beginning."""
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return [span.name for span in sorted(found, key=lambda each: each.start_time_unix_nano)]


def attributes(owner: list[KeyValue]) -> dict[str, object]:
    """As Python has them."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in owner
    }


@contextmanager
def open_collector() -> Iterator[Collector]:
    """Listens on a free port."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.requests.append(service.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def write_models(folder: Path) -> None:
    """Two steps and an ensemble of them."""
    write_identity(folder, "first")
    write_identity(folder, "second")
    (folder / "both" / "1").mkdir(parents=True)
    (folder / "both" / "config.pbtxt").write_text(ENSEMBLE)
