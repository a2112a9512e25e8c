"""The engine over a folder and its adapters, in the test's own thread."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_engine import DrivenEngine, Result

from trivet.backends.api import Sampling
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.messages import AdapterRead, LoadAdapter, Message, Quit, Submit
from trivet.backends.llm.settings import EngineSettings


class AdaptedEngine(DrivenEngine):
    """One with adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[str, AdapterRead] = {}
        self._keys: dict[str, str] = {}
        self._forgotten: set[str] = set()

    def send(self, message: Message) -> None:
        if isinstance(message, AdapterRead):
            self.read[message.key] = message
            self.engine.inbox.put(Quit())
        else:
            super().send(message)

    def load(self, name: str, folder: Path) -> AdapterRead:
        """Has an adapter read and says what came of it."""
        key = self._keys[name] = f"{name}#{len(self._keys)}"
        self.engine.inbox.put(LoadAdapter(key, name, str(folder)))
        self.engine.run()
        return self.read[key]

    def forget(self, request_id: str) -> None:
        """Nobody waits for the end of this one."""
        self._forgotten.add(request_id)

    def key(self, name: str) -> str:
        """Of an adapter that was loaded; the base's is empty."""
        return self._keys[name] if name else ""

    def ask(
        self, wanted: Sequence[tuple[str, Sequence[int]]], sampling: Sampling, salt: str = ""
    ) -> list[Result]:
        """Requests of adapters and prompts, all at once."""
        submits = [
            Submit(str(i), list(prompt), sampling, 0, [], [], 0, salt, adapter=self.key(name))
            for i, (name, prompt) in enumerate(wanted)
        ]
        self.expected = len(submits) - len(self._forgotten)
        results = self.run(submits)
        return [results[str(index)] for index in range(len(wanted))]


def open_adapted(
    folder: Path, adapters: Mapping[str, Path], driven: AdaptedEngine | None = None, **given: Any
) -> AdaptedEngine:
    """Built as the server builds it: 4 tokens in a block, 16 in a step."""
    driven = driven or AdaptedEngine()
    settings = EngineSettings(
        str(folder),
        **{
            "dtype": "float32", "num_threads": 1, "block_size": 4, "max_batched_tokens": 16,
            "kv_cache_bytes": 1 << 21, "max_num_seqs": 16,
        } | given,
    )  # fmt: skip
    driven.engine, _ = assemble.make_engine(settings, driven.send)
    for name, path in adapters.items():
        read = driven.load(name, path)
        assert not read.error, read.error
    return driven
