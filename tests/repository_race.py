"""Clients that change and ask the models of a server all at once, and write down what they saw."""

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from google.protobuf import text_format
from linearizability import Operation
from repository_specification import (
    Answered,
    Event,
    Listed,
    Load,
    Refusal,
    Refused,
    Unloaded,
    WasReady,
    events_of,
)
from serving import RunningServer
from tritonclient.utils import InferenceServerException

from trivet.backends.api import from_json

VERSIONS = frozenset((1, 2, 3))
PROTOCOLS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
REFUSALS = {each.value: each for each in Refusal} | {
    "StatusCode.INVALID_ARGUMENT": Refusal.WRONG,
    "StatusCode.INTERNAL": Refusal.WRONG,  # a load that failed: HTTP says 400
    "StatusCode.NOT_FOUND": Refusal.NOT_FOUND,
    "StatusCode.UNAVAILABLE": Refusal.COMING,
}
History = list[Operation[Event]]
Histories = dict[str, History]


@dataclass(frozen=True, slots=True)
class Infer:
    model: str
    version: int | None


@dataclass(frozen=True, slots=True)
class AskReady:
    model: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Index:
    """Of all models."""


@dataclass(frozen=True, slots=True)
class LoadFolder:
    """As it lies in the repository: all versions."""

    model: str


@dataclass(frozen=True, slots=True)
class LoadVersions:
    """With a config of its own."""

    model: str
    versions: frozenset[int]
    """None of them: the config is wrong."""
    delay_ms: int = 0
    """How long its answers take, and, since it is warmed up, how long its versions load."""
    is_abandoned: bool = False
    """Whether the client hangs up after its next step instead of waiting for the end."""


@dataclass(frozen=True, slots=True)
class Unload:
    model: str


Step = Infer | AskReady | Index | LoadFolder | LoadVersions | Unload


def write_models(repository: Path, names: Iterable[str]) -> None:
    """Models that return their input under a name that tells which load they are of."""
    for name in names:
        for version in VERSIONS:
            (repository / name / str(version)).mkdir(parents=True)
        config = from_json(json.dumps(_config("FOLDER", VERSIONS)))
        (repository / name / "config.pbtxt").write_text(text_format.MessageToString(config))


def _config(label: str, versions: frozenset[int], delay_ms: int = 0) -> dict[str, Any]:
    tensor = {"data_type": "TYPE_FP32", "dims": [1]}
    config: dict[str, Any] = {
        "backend": "identity",
        "max_batch_size": 0 if versions else -1,
        "input": [{"name": "INPUT0", **tensor}],
        "output": [{"name": label, **tensor}],
        "version_policy": {"specific": {"versions": sorted(versions)}},
    }
    if delay_ms:
        config["parameters"] = {"execute_delay_ms": {"string_value": str(delay_ms)}}
        warm = {"name": "warm", "inputs": {"INPUT0": {**tensor, "zero_data": True}}}
        config["model_warmup"] = [warm]
    return config


async def race(
    server: RunningServer, models: Sequence[str], plans: Sequence[Sequence[Step]]
) -> Histories:
    """One client for each plan, in turn over HTTP and gRPC; what they saw of each model."""
    numbers = itertools.count(1)
    clients = [
        Client(f"{protocol}{index}", protocol, server, models, numbers)
        for index, (_, protocol) in enumerate(zip(plans, itertools.cycle(PROTOCOLS), strict=False))
    ]
    await asyncio.gather(*(client.run(plan) for client, plan in zip(clients, plans, strict=True)))
    return {model: [each for c in clients for each in c.histories[model]] for model in models}


class Client:
    """One caller, which does a thing at a time."""

    def __init__(
        self,
        name: str,
        protocol: str,
        server: RunningServer,
        models: Sequence[str],
        numbers: Iterator[int],
    ) -> None:
        self.histories: defaultdict[str, History] = defaultdict(list)
        self._name = name
        self._library: Any = PROTOCOLS[protocol]
        self._as_json = {"as_json": True} if protocol == "grpc" else {}
        self._server = server
        self._address = server.grpc if protocol == "grpc" else server.http
        self._models = models
        self._numbers = numbers
        self._abandoned: list[asyncio.StreamWriter] = []

    async def run(self, steps: Sequence[Step]) -> None:
        async with self._library.aio.InferenceServerClient(self._address) as self._client:
            for step in steps:
                leaving, self._abandoned = self._abandoned, []
                await self._take(step)
                _hang_up(leaving)
            _hang_up(self._abandoned)

    async def _take(self, step: Step) -> None:
        called = _now_us()
        match step:
            case Index():
                for model, listed in await self._index():
                    self._note(model, called, listed)
            case LoadVersions(is_abandoned=True):
                load = self._load(step)
                self._abandoned.append(await self._begin(load, step))
                for event in events_of(load):
                    self.histories[step.model].append(Operation(self._name, event, called, None))
            case LoadFolder() | LoadVersions():
                load = self._load(step)
                await self._finish(load, step)
                self._note(step.model, called, *events_of(load))
            case Infer():
                self._note(step.model, called, await self._infer(step))
            case AskReady():
                self._note(step.model, called, await self._ask_ready(step))
            case Unload():
                await self._client.unload_model(step.model)
                self._note(step.model, called, Unloaded())

    def _note(self, model: str, called: int, *events: Event) -> None:
        returned = _now_us()
        self.histories[model] += (
            Operation(self._name, event, called, returned) for event in events
        )

    # -- load ----------------------------------------------------------------------------------

    def _load(self, step: LoadFolder | LoadVersions) -> Load:
        number = next(self._numbers)
        if isinstance(step, LoadFolder):
            return Load(number, "FOLDER", VERSIONS)
        return Load(number, f"LOAD{number}", step.versions)

    async def _finish(self, load: Load, step: LoadFolder | LoadVersions) -> None:
        refusal = None
        try:
            await self._client.load_model(step.model, config=_override(load, step))
        except InferenceServerException as error:
            refusal = REFUSALS[error.status()]
        assert refusal is (None if load.versions else Refusal.WRONG), load

    async def _begin(self, load: Load, step: LoadVersions) -> asyncio.StreamWriter:
        """Sends a load over HTTP; the answer is never read."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._server.http_port)
        body = json.dumps({"parameters": {"config": _override(load, step)}}).encode()
        head = f"POST /v2/repository/models/{step.model}/load HTTP/1.1\r\nHost: a\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return writer

    # -- questions -----------------------------------------------------------------------------

    async def _infer(self, step: Infer) -> Answered | Refused:
        given = self._library.InferInput("INPUT0", [1], "FP32")
        given.set_data_from_numpy(np.ones(1, np.float32))
        version = str(step.version or "")
        try:
            result = await self._client.infer(step.model, [given], model_version=version)
        except InferenceServerException as error:
            return Refused(step.version, REFUSALS[error.status()])
        answer = result.get_response(**self._as_json)
        (output,) = answer["outputs"]
        return Answered(step.version, int(answer["model_version"]), output["name"])

    async def _ask_ready(self, step: AskReady) -> WasReady:
        version = str(step.version or "")
        return WasReady(step.version, await self._client.is_model_ready(step.model, version))

    async def _index(self) -> Iterator[tuple[str, Listed]]:
        answer = await self._client.get_model_repository_index(**self._as_json)
        rows = answer.get("models", []) if self._as_json else answer
        return ((model, _listed(rows, model)) for model in self._models)


def _override(load: Load, step: LoadFolder | LoadVersions) -> str | None:
    if isinstance(step, LoadFolder):
        return None
    return json.dumps(_config(load.label, step.versions, step.delay_ms))


def _listed(rows: list[dict[str, str]], model: str) -> Listed:
    states = {
        int(row["version"]): row["state"]
        for row in rows
        if row["name"] == model and row.get("version")
    }
    ready, loading = (
        frozenset(version for version, state in states.items() if state == wanted)
        for wanted in ("READY", "LOADING")
    )
    return Listed(ready, loading)


def _now_us() -> int:
    return time.monotonic_ns() // 1000


def _hang_up(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
