"""A small HTTP server that answers as a test says: a model, a judge, an embedding model."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Site:
    """What it answers, and what it was asked."""

    say: Callable[[str], str] = lambda text: text
    """To the last message of a chat."""
    judge: Callable[[str], str] = lambda _: '{"verdict": "pass", "reason": "fine"}'
    headers: Mapping[str, str] = field(default_factory=dict)
    tool: Mapping[str, Any] | None = None
    asked: list[tuple[str, Any, Mapping[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: Any) -> Any:
        if path.endswith("/infer"):
            values = [2 * value for value in body["inputs"][0]["data"]]
            made = {"name": "y", "datatype": "FP32", "shape": [len(values)], "data": values}
            return {"model_name": "m", "model_version": "2", "outputs": [made]}
        if path == "/v1/chat/completions":
            text = body["messages"][-1]["content"]
            said = self.judge(text) if body["model"] == "judge" else self.say(text)
            message: dict[str, Any] = {"role": "assistant", "content": said}
            if self.tool is not None:
                function = {"name": self.tool["name"], "arguments": json.dumps(self.tool["given"])}
                message["tool_calls"] = [{"id": "1", "type": "function", "function": function}]
            return {"choices": [{"message": message}], "usage": {"total_tokens": 100}}
        if path == "/v1/completions":
            return {"choices": [{"text": self.say(body["prompt"])}]}
        if path == "/v1/embeddings":
            data = [[float(len(text)), 1.0] for text in body["input"]]
            return {"data": [{"embedding": each} for each in data]}
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
        return {"name": "m", "versions": ["1", "2"], "inputs": inputs}


@contextmanager
def open_site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            site.asked.append((self.path, body, dict(self.headers)))
            content = json.dumps(site.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_set(path: Path, *cases: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(case)}\n" for case in cases))
    return path


def chat(name: str, text: str, *expect: object) -> dict[str, Any]:
    return {"id": name, "messages": [{"role": "user", "content": text}], "expect": list(expect)}
