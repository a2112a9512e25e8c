"""All routes over models that are scripted, in a thread of their own, for clients that block."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from http_site import console_room
from patience import patience
from scripted_encoder import EncodingCore
from scripted_model import ScriptedModel

from trivet.server.http.app import HttpLimits, HttpServer


@contextmanager
def described() -> Iterator[str]:
    """The base URL."""
    core = EncodingCore({"m": ScriptedModel()})
    server = HttpServer(core, HttpLimits(), "127.0.0.1", 0, console=console_room())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

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
