"""An engine that computes nothing: `python -m bench.sse_engine DESCRIPTOR` gives each request a
token a step, one step after the other, each as soon as the server has read the last."""

import select
import socket
import sys
from collections.abc import Iterator

from trivet.backends.llm.messages import (
    Abort,
    FrameReader,
    Message,
    Output,
    Outputs,
    Submit,
    pack,
)

STATS = {"running": 0.0, "waiting": 0.0, "kv_usage": 0.0, "num_blocks": 1.0}
SEND_BYTES = 4096
"""So small that no second step waits in the socket: steps would be read, and written, together."""
TOKENS = range(1000, 1400)
"""Ordinary words of the vocabulary, whole characters all."""


def run(end: socket.socket) -> None:
    """Until the server hangs up."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
    reader = FrameReader()
    left: dict[str, int] = {}
    step = 0
    while True:
        if not left or select.select([end], [], [], 0)[0]:
            data = end.recv(1 << 18)
            if not data:
                return
            _take(reader.feed(data), left)
        step += 1
        if left:
            end.sendall(pack(_outputs(left, TOKENS[step % len(TOKENS)])))


def _take(messages: Iterator[Message], left: dict[str, int]) -> None:
    for message in messages:
        if isinstance(message, Submit):
            left[message.id] = message.sampling.max_tokens or 1
        elif isinstance(message, Abort):
            for request_id in message.ids:
                left.pop(request_id, None)


def _outputs(left: dict[str, int], token: int) -> Outputs:
    outputs = []
    for request_id, count in list(left.items()):
        if count > 1:
            left[request_id] = count - 1
        else:
            del left[request_id]
        outputs.append(Output(request_id, [token], "" if count > 1 else "length"))
    return Outputs(outputs, STATS)


def main() -> None:
    """argv: descriptor of the socket."""
    run(socket.socket(fileno=int(sys.argv[1])))
