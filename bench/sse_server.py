"""The server process over an engine that computes nothing: `python -m bench.sse_server GGUF` prints
its port. All but the engine is what serves: HTTP, OpenAI's API, tokenizer, executor, sockets."""

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any, cast

import uvloop

from trivet.backends.api import Generator, ModelNotFound
from trivet.backends.llm.process.process import EngineProcess
from trivet.backends.llm.serving.executor import LlmExecutor
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.documents import load_tokenizer_files
from trivet.backends.process.launch import launch
from trivet.server.core import Core
from trivet.server.http.app import HttpLimits, HttpServer
from trivet.server.shared_memory.system import SharedMemory
from trivet.server.tracing.tracing import Tracing

INFO: dict[str, Any] = {
    "max_model_len": 1 << 20, "vocabulary_size": 49_152, "max_logprobs": 20, "dtype": "none",
    "architecture": "fake", "eos_token_ids": (2,),
}  # fmt: skip


class OneModel:
    """The part of the core that the language APIs ask."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.shared_memory = SharedMemory(enabled=False)
        self.tracing = Tracing()

    def generator(self, name: str, *_: object) -> tuple[Generator, dict[str, str]]:
        """Whose name is "fake"."""
        if name != "fake":
            raise ModelNotFound(f"The model `{name}` does not exist.")
        return self._generator, {}


def start_engine() -> EngineProcess:
    """The fake engine in a process of its own, as a real one is."""
    launched = launch("bench.sse_engine", [], b"", ("fake", "fake"))
    return EngineProcess("fake", launched, INFO, ())


async def serve(model: str) -> None:
    """Until standard input ends."""
    files = load_tokenizer_files(Path(model))
    tokenizer = Tokenizer.from_files(files)
    template = ChatTemplate(files.chat_template or "", files.special_texts, tokenizer.special_texts)
    settings = EngineSettings(model)
    executor = LlmExecutor("fake", 1, start_engine(), settings, tokenizer, template)
    server = HttpServer(cast(Core, OneModel(executor)), HttpLimits(), "127.0.0.1", 0)
    gc.freeze()
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.close()
    await executor.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
