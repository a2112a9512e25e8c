"""Rank 0's side of the processes that compute a model with it: told each step, watched."""

import contextlib
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
from torch import Tensor

from trivet.backends.llm.adapters.adapter import Adapter
from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.loading import LoadedPart
from trivet.backends.llm.ranks.step_frames import packed_slot, packed_step
from trivet.backends.llm.sampling.draws import Draws
from trivet.backends.llm.scheduling.batch_state import StepArrays
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.launch import Process, launch

log = logging.getLogger(__name__)
LOAD_GRACE_S = 10.0
"""So long rank 0 may go on loading after another has ended."""


class RankProcesses:
    """Ranks 1 and up. They end when rank 0 does, whose ends of their sockets close then; rank 0
    ends when one of them does: the server starts all of them again."""

    def __init__(self, folder: "tempfile.TemporaryDirectory[str]") -> None:
        self._folder = folder
        self._met = threading.Event()
        self._sockets: list[socket.socket] = []
        self.processes: list[Process] = []

    @property
    def meeting(self) -> str:
        """The file at which ranks find each other."""
        return str(Path(self._folder.name) / "meeting")

    @classmethod
    def start(
        cls, settings: EngineSettings, on_death: Callable[[], None] = lambda: os._exit(1)
    ) -> "RankProcesses":
        """Starts them; they load their parts of the model while rank 0 loads its own."""
        ranks = cls(tempfile.TemporaryDirectory(prefix="trivet-ranks-"))
        try:
            for rank in range(1, settings.num_ranks):
                ranks._start(rank, settings, on_death)
        except BaseException:
            ranks.close()
            raise
        return ranks

    def note_loaded(self) -> None:
        """All ranks have met and loaded their parts."""
        self._met.set()
        self._folder.cleanup()

    def tell(self, frame: bytes) -> None:
        """One message for all of them. Does not wait until they have read it, as a rule."""
        for end in self._sockets:
            # The watching thread sees the end of a process; it says why.
            with contextlib.suppress(OSError):
                end.sendall(frame)

    def close(self) -> None:
        """Ends them."""
        for end in self._sockets:
            end.close()
        for process in self.processes:
            process.wait()
        self._folder.cleanup()

    def _start(self, rank: int, settings: EngineSettings, on_death: Callable[[], None]) -> None:
        launched = launch(
            "trivet.backends.llm.ranks.child",
            [str(rank), self.meeting],
            orjson.dumps(settings.to_json()),
            (f"rank {rank}", ""),
        )
        process = launched.process
        self._sockets.append(launched.socket)
        self.processes.append(process)
        threading.Thread(target=self._watch, args=(rank, process, on_death), daemon=True).start()

    def _watch(self, rank: int, process: Process, on_death: Callable[[], None]) -> None:
        code = process.wait()
        # What a rank cannot load, rank 0 as a rule cannot either, and says why.
        self._met.wait(LOAD_GRACE_S)
        if self._sockets[rank - 1].fileno() >= 0:
            log.error("rank %d ended (code %d): the engine ends with it", rank, code)
            on_death()


class RankedRunner:
    """A StepRunner and a Launcher that tells the other ranks what it runs itself."""

    def __init__(self, loaded: LoadedPart, others: RankProcesses) -> None:
        self._loaded = loaded
        self._others = others

    def run(self, arrays: StepArrays, rows: list[int]) -> Tensor:
        """See StepRunner."""
        self._others.tell(packed_step(arrays, rows))
        return self._loaded.runner.run(arrays, rows)

    def launch(self, arrays: StepArrays, rows: list[int], draws: Draws) -> Callable[[], list[int]]:
        """See Launcher."""
        self._others.tell(packed_step(arrays, rows, draws))
        return self._loaded.runner.launch(arrays, rows, draws)

    def prepare(self) -> bool:
        """All ranks do the same piece of work for idle moments."""
        self._others.tell(packed_step())
        return self._loaded.prepare()


class StagedRunner:
    """A StageRunner: the other ranks are told at once. A processor computes this one's part when
    somebody waits for it, so that it can plan meanwhile what the others compute next; a GPU is told
    at once, too."""

    def __init__(self, loaded: LoadedPart, others: RankProcesses) -> None:
        self._runner = loaded.runner
        self._others = others
        self._is_async = loaded.device.type != "cpu"

    def begin(self, arrays: StepArrays, rows: list[int]) -> Callable[[], Tensor]:
        """See StageRunner."""
        self._others.tell(packed_step(arrays, rows))
        if not self._is_async:
            return partial(self._runner.run, arrays, rows)
        # A copy: the next replay of a recorded step writes over this one's result.
        logits = self._runner.run(arrays, rows).clone()
        return lambda: logits


class RankedSlots:
    """The slots of all ranks: each takes its part of the same files. They come through the socket,
    for what lies in the folder may be another adapter by now. See Slots."""

    def __init__(self, bank: AdapterBank, others: RankProcesses) -> None:
        self._bank = bank
        self._others = others

    def put(self, slot: int, adapter: Adapter) -> None:
        """See Slots."""
        self._others.tell(packed_slot(slot, adapter.files))
        self._bank.put(slot, adapter)

    def drop(self, slot: int) -> None:
        """See Slots."""
        self._others.tell(packed_slot(slot))
        self._bank.drop(slot)
