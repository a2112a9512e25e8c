"""`python -m bench.llm_packed_side WHAT ARGUMENT`: what a process of its own finds, as JSON."""

import gc
import json
import queue
import re
import sys
import time
from pathlib import Path

import torch

from bench.llm_alone import generate, prompts
from trivet.backends.llm.engine.assemble import make_engine
from trivet.backends.llm.messages import Message
from trivet.backends.llm.settings import EngineSettings

CACHE_BYTES = 1 << 27
_RESIDENT = re.compile(r"^Rss: +(\d+) kB$", re.MULTILINE)


def resident(model: str) -> dict[str, float]:
    """What of memory an engine has once it has generated a little: hardly anything of its cache."""
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    built, _ = make_engine(EngineSettings(model, kv_cache_bytes=CACHE_BYTES), seen.put)
    gc.collect()
    generate(built, seen, prompts(1, 32), 8)
    whole = _RESIDENT.search(Path("/proc/self/smaps_rollup").read_text())
    assert whole is not None
    return {"bytes": int(whole[1]) << 10}


def bandwidth(size: str) -> dict[str, float]:
    """Bytes a second that all cores together read: the best of some rounds."""
    numbers = torch.ones(int(size) // 4)
    best = 0.0
    for _ in range(5):
        started_s = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / (time.perf_counter() - started_s))
    return {"bytes_per_s": best}


if __name__ == "__main__":
    what, argument = sys.argv[1:]
    print(json.dumps({"resident": resident, "bandwidth": bandwidth}[what](argument)))
