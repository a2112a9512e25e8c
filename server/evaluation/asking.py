"""Asks a running server, over HTTP, what a case asks."""

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from trivet.backends.api.datatype import BY_NAME, DataType
from trivet.server.evaluation.answer import Answer, Call
from trivet.server.evaluation.case import Case
from trivet.server.evaluation.faults import SetFault

COST_HEADER = "x-trivet-cost"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
Headers = Mapping[str, str]
NO_HEADERS: Headers = MappingProxyType({})
VERSION_HEADER = "x-model-version"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    document: Any
    """None where it is no JSON."""
    headers: Headers

    @property
    def fault(self) -> str:
        """The server's words for what went wrong; empty: nothing did."""
        if self.status < 400:
            return "" if self.document is not None else "the answer is no JSON"
        found = self.document.get("error") if isinstance(self.document, dict) else None
        if isinstance(found, dict):
            found = found.get("message")
        return f"{found or 'refused'} (status {self.status})"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an HTTP API is, and with which key."""

    url: str
    api_key: str = ""
    timeout_s: float = 60.0

    def ask(self, method: str, path: str, body: object = None, more: Headers = NO_HEADERS) -> Reply:
        """One request. Raises OSError where no answer comes."""
        parts = urlsplit(self.url if "//" in self.url else f"http://{self.url}")
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        headers = {"Content-Type": "application/json", **more}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, parts.path.rstrip("/") + path, data, headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER_BYTES)
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, _document(content), told)
        except http.client.HTTPException as error:
            raise OSError(f"what answers speaks no HTTP: {error}") from None
        finally:
            connection.close()

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=self.timeout_s)


def _document(content: bytes) -> Any:
    try:
        return json.loads(content) if content else {}
    except (ValueError, RecursionError):
        return None


class ModelAsker:
    """Asks one version of a model. Any thread may."""

    def __init__(self, endpoint: Endpoint, model: str, version: str = "") -> None:
        """`model` may end in `@` and a label, or `version` is a number."""
        self._endpoint = endpoint
        self._model = model
        self._version = version
        self._specs: dict[str, str] | None = None

    @property
    def _path(self) -> str:
        path = f"/v2/models/{quote(self._model, safe='')}"
        return f"{path}/versions/{self._version}" if self._version else path

    def described(self) -> dict[str, Any]:
        """The version's metadata. Raises SetFault."""
        reply = self._asked("GET", self._path)
        if reply.fault:
            raise SetFault(f"model '{self._model}': {reply.fault}")
        document: dict[str, Any] = reply.document
        return document

    def ask(self, case: Case) -> Answer:
        """What the model answers. Raises SetFault for a case that cannot be asked, or where there
        is no server."""
        started_s = time.monotonic()
        if case.inputs:
            reply = self._asked("POST", f"{self._path}/infer", self._tensors(case))
        else:
            reply = self._generate(case)
        latency_s = time.monotonic() - started_s
        cost = _number(reply.headers.get(COST_HEADER, ""))
        if reply.fault:
            return Answer(error=reply.fault, latency_s=latency_s, cost=cost)
        try:
            return _read(reply.document, latency_s, cost, is_tensors=bool(case.inputs))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            told = f"the answer is none of its API: {type(error).__name__} {error}"
            return Answer(error=told, latency_s=latency_s, cost=cost)

    def _generate(self, case: Case) -> Reply:
        body: dict[str, Any] = {"model": self._model, "temperature": 0, **case.options}
        if case.messages:
            path, body = "/v1/chat/completions", {**body, "messages": list(case.messages)}
        else:
            path, body = "/v1/completions", {**body, "prompt": case.prompt}
        more = {VERSION_HEADER: self._version} if self._version else NO_HEADERS
        return self._asked("POST", path, body, more)

    def _asked(
        self, method: str, path: str, body: object = None, more: Headers = NO_HEADERS
    ) -> Reply:
        try:
            return self._endpoint.ask(method, path, body, more)
        except OSError as error:
            if isinstance(error, TimeoutError):
                told = f"no answer within {self._endpoint.timeout_s:g} s"
                return Reply(504, {"error": told}, {})
            raise SetFault(f"no server answers at {self._endpoint.url}: {error}") from None

    def _tensors(self, case: Case) -> dict[str, Any]:
        if self._specs is None:
            inputs = self.described()["inputs"]
            self._specs = {spec["name"]: spec["datatype"] for spec in inputs}
        made = []
        for name, values in case.inputs.items():
            if name not in self._specs:
                known = ", ".join(self._specs)
                raise SetFault(f"{case.place}: the model has no input '{name}'; it has {known}")
            made.append(_tensor(name, values, self._specs[name], case.place))
        return {"inputs": made, "parameters": dict(case.options)}


def _tensor(name: str, values: object, word: str, place: str) -> dict[str, Any]:
    datatype = BY_NAME[word]
    try:
        array = np.array(values, dtype=object if datatype is DataType.BYTES else datatype.dtype)
    except (TypeError, ValueError) as error:
        raise SetFault(f"{place}: input '{name}' takes {word}: {error}") from None
    data = [str(v) for v in array.ravel()] if datatype is DataType.BYTES else array.ravel().tolist()
    return {"name": name, "datatype": word, "shape": list(array.shape), "data": data}


def _read(document: Any, latency_s: float, cost: float, *, is_tensors: bool) -> Answer:
    if is_tensors:
        outputs = {each["name"]: _array(each) for each in document["outputs"]}
        return Answer(outputs=outputs, latency_s=latency_s, cost=cost)
    choice = document["choices"][0]
    if "message" not in choice:
        return Answer(str(choice["text"]), latency_s=latency_s, cost=cost)
    message = choice["message"]
    calls = [_call(each["function"]) for each in message.get("tool_calls") or ()]
    return Answer(message.get("content") or "", calls, latency_s=latency_s, cost=cost)


def _call(function: Mapping[str, Any]) -> Call:
    try:
        return Call(function["name"], json.loads(function["arguments"]))
    except ValueError:
        return Call(function["name"], function["arguments"])


def _array(output: Mapping[str, Any]) -> np.ndarray:
    datatype = BY_NAME[output["datatype"]]
    dtype = np.dtype(object) if datatype is DataType.BYTES else datatype.dtype
    return np.array(output["data"], dtype=dtype).reshape(output["shape"])


def _number(text: str) -> float:
    try:
        return float(text) if text else 0.0
    except ValueError:
        return 0.0
