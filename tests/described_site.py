"""All routes over models that are scripted, in a thread of their own, for clients that block."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from http_site import FakeCore
from patience import patience
from scripted_model import ScriptedModel

from trivet.backends.api import Generator, ModelNotFound
from trivet.server.core import Core
from trivet.server.http.app import HttpLimits, HttpServer
from trivet.server.logs.setting import LogSetting
from trivet.server.tracing.setting import Change
from trivet.server.tracing.tracing import Described


class WholeCore(FakeCore):
    """Tensors that echo, and one language model."""

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Generator] = {"m": ScriptedModel()}
        self.log_setting = LogSetting()

    def generator(self, name: str) -> Generator:
        if name not in self.models:
            raise ModelNotFound(f"The model `{name}` does not exist.")
        return self.models[name]

    def generators(self) -> dict[str, Generator]:
        return dict(self.models)

    def unnamed_generators(self) -> dict[str, Generator]:
        return dict(self.models)

    def is_generating(self) -> bool:
        return True

    def is_ensemble(self, name: str) -> bool:
        return False

    def measured(self) -> dict[str, Any]:
        return {}

    def trace_settings(self, name: str = "") -> Described:
        self._require(name)
        return self.tracing.describe(name)

    def change_trace_settings(self, changes: Mapping[str, Change], name: str = "") -> Described:
        self._require(name)
        self.tracing.update(changes, name)
        return self.tracing.describe(name)

    def log_settings(self) -> dict[str, Any]:
        return dict(self.log_setting.describe())

    def change_log_settings(self, changes: Mapping[str, object]) -> dict[str, Any]:
        self.log_setting = self.log_setting.changed(changes)
        return dict(self.log_setting.describe())

    def _require(self, name: str) -> None:
        if name:
            self.signature(name, None)


@contextmanager
def described() -> Iterator[str]:
    """The base URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    core = WholeCore()
    server = HttpServer(cast(Core, core), HttpLimits(), "127.0.0.1", 0)

    def run(step: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(step, loop).result(patience())

    try:
        yield f"http://127.0.0.1:{run(server.start())}"
    finally:
        run(server.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        core.shared_memory.close()
