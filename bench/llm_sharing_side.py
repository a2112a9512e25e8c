"""`python -m bench.llm_sharing_side MODEL`: our LLM engine in a process of its own. For each line
`STREAMS SECONDS` that it reads it generates for about as long, and prints tokens a second."""

import itertools
import queue
import sys
import time

from bench.llm_alone import generate, prompts
from trivet.backends.llm.engine.assemble import make_engine
from trivet.backends.llm.engine.engine import Engine
from trivet.backends.llm.messages import Message
from trivet.backends.llm.settings import EngineSettings

PROMPT_TOKENS, NEW_TOKENS = 32, 64


def measure(built: Engine, seen: queue.SimpleQueue[Message], streams: int, seconds: float) -> float:
    """Tokens a second of whole rounds of requests, until the time is over."""
    started_s, num_tokens = time.perf_counter(), 0
    for _ in itertools.count():
        generate(built, seen, prompts(streams, PROMPT_TOKENS), NEW_TOKENS)
        num_tokens += streams * NEW_TOKENS
        elapsed_s = time.perf_counter() - started_s
        if elapsed_s >= seconds:
            break
    return num_tokens / elapsed_s


def serve(model: str) -> None:
    """Until its input ends."""
    seen: queue.SimpleQueue[Message] = queue.SimpleQueue()
    built, _ = make_engine(EngineSettings(model, prefix_caching=False), seen.put)
    generate(built, seen, prompts(1, 8), 4)  # the first step of a process is slow
    print("ready", flush=True)
    for line in sys.stdin:
        streams, seconds = line.split()
        print(measure(built, seen, int(streams), float(seconds)), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
