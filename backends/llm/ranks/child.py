"""The process of a rank above 0: loads its part of the model and does what rank 0 says."""

import logging
import os
import queue
import signal
import socket
import sys
import threading

import orjson
import torch

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.device.devices import choose_device
from trivet.backends.llm.device.group import join
from trivet.backends.llm.loading import LoadedPart, load_part
from trivet.backends.llm.ranks.step_frames import RankSlot, RankStep, bodies, unpacked
from trivet.backends.llm.settings import EngineSettings

log = logging.getLogger(__name__)


def main() -> None:
    """argv: descriptor of the socket, rank, meeting file. The settings come on standard input."""
    end, rank = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    settings = EngineSettings(**orjson.loads(sys.stdin.buffer.read()))
    steps: queue.SimpleQueue[RankStep | RankSlot] = queue.SimpleQueue()
    threading.Thread(target=read, args=(end, steps), daemon=True).start()
    torch.set_num_threads(settings.num_threads or len(os.sched_getaffinity(0)))
    device = choose_device(settings.device, rank)
    loaded, _ = load_part(settings, device, join(rank, settings, device, sys.argv[3]))
    log.info("rank %d, %s", rank, loaded.told())
    while True:
        follow(loaded, steps.get())


def follow(loaded: LoadedPart, step: RankStep | RankSlot) -> None:
    """Does this rank's part of what rank 0 does. What it gives, rank 0 has too."""
    if isinstance(step, RankSlot):
        _fill(loaded, step)
    elif step.arrays is None:
        loaded.prepare()
    elif step.draws is None:
        loaded.runner.run(step.arrays, step.rows)
    else:
        loaded.runner.launch(step.arrays, step.rows, step.draws)


def _fill(loaded: LoadedPart, step: RankSlot) -> None:
    """Rank 0 has read the same files, and found nothing wrong with them."""
    bank = loaded.adapters
    assert isinstance(bank, AdapterBank)
    if step.files is None:
        bank.drop(step.slot)
    else:
        bank.put(step.slot, bank.read(step.files))


def read(end: socket.socket, steps: "queue.SimpleQueue[RankStep | RankSlot]") -> None:
    """Brings frames into the queue. Ends the process when rank 0 is gone, which the thread that
    computes would not notice while it waits for the others."""
    data = bytearray()
    while received := _receive(end):
        data += received
        for body in bodies(data):
            steps.put(unpacked(body))
    os._exit(0)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 20)
    except OSError:
        return b""
