"""Requests of 10,000 sequences that are open at once next to requests of 100: the cost of one must
not depend on how many there are. What counts is the server's CPU time: the client, a Python
program, is the slower of the two."""

import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from bench.figures import Figures, Row, alternate
from bench.processes import Listener, run_module, trivet
from trivet.protos import grpc_service_pb2 as pb

MANY, FEW = 10_000, 100
IN_FLIGHT = 64
BAR = 0.8
ANSWER_TIMEOUT_S = 20
METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
CONFIG = """
backend: "identity"
max_batch_size: 64
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
sequence_batching {
  max_sequence_idle_microseconds: 600000000
  oldest { max_candidate_sequences: 10000 }
  control_input [
    { name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }] },
    { name: "CORRID" control [{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }] }
  ]
}
"""


def bench_sequences(seconds: float, rounds: int) -> list[Row]:
    """Requests per second on one gRPC stream, to sequences in random order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "identity"
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(CONFIG)
        with trivet(Path(name)) as server:
            sides = {
                str(count): lambda count=count: _measure(server, count, seconds)
                for count in (MANY, FEW)
            }
            sides |= {
                f"alone {count}": lambda count=count: run_module(
                    "bench.sequences_alone", str(count), str(seconds)
                )
                for count in (MANY, FEW)
            }
            found = alternate(sides, rounds)
    many, few = found[str(MANY)], found[str(FEW)]
    note = f"{many['rate_per_s']:,.0f} / {few['rate_per_s']:,.0f} requests a second"
    cell = f"{MANY:,} open sequences / {FEW}"
    served, served_few = (1e6 / each["server_cpu_us"] for each in (many, few))
    alone, alone_few = (found[f"alone {count}"]["rate_per_s"] for count in (MANY, FEW))
    return [
        Row(f"{cell}, grpc stream", "1/CPU s", served, served_few, BAR, note=note),
        Row(f"{cell}, batcher alone", "1/CPU s", alone, alone_few, BAR),
    ]


def _measure(server: Listener, num_sequences: int, seconds: float) -> Figures:
    """Opens the sequences, sends to them for a while, ends them."""
    order = np.random.default_rng(3).integers(0, num_sequences, 1 << 16)
    steps = [_message(number + 1) for number in range(num_sequences)]
    with grpc.insecure_channel(f"127.0.0.1:{server.ports['grpc']}") as channel:
        stream = _Stream(channel)
        stream.run(_message(number + 1, start=True) for number in range(num_sequences))
        cpu_s, started_s = _cpu_s(server.pid), time.perf_counter()
        ends_s = started_s + seconds
        count = stream.run(_until(ends_s, steps, order))
        elapsed_s = time.perf_counter() - started_s
        cpu_s = _cpu_s(server.pid) - cpu_s
        stream.run(_message(number + 1, end=True) for number in range(num_sequences))
        stream.close()
    return {"rate_per_s": count / elapsed_s, "server_cpu_us": cpu_s / count * 1e6}


def _until(ends_s: float, steps: list[bytes], order: np.ndarray) -> Iterator[bytes]:
    while True:
        for number in order:
            if time.perf_counter() > ends_s:
                return
            yield steps[number]


def _message(sequence_id: int, *, start: bool = False, end: bool = False) -> bytes:
    request = pb.ModelInferRequest(model_name="identity", raw_input_contents=[bytes(64)])
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
    request.parameters["sequence_id"].int64_param = sequence_id
    if start:
        request.parameters["sequence_start"].bool_param = True
    if end:
        request.parameters["sequence_end"].bool_param = True
    return request.SerializeToString()


class _Stream:
    """A stream with a bounded number of requests in flight; answers are only counted."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._error = ""
        self._call = channel.stream_stream(METHOD)(iter(self._outbox.get, None))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def run(self, messages: Iterator[bytes]) -> int:
        """Sends all and returns their number once all are answered."""
        count = 0
        for message in messages:
            self._take_room()
            self._outbox.put(message)
            count += 1
        for _ in range(IN_FLIGHT):
            self._take_room()
        self._room.release(IN_FLIGHT)
        return count

    def _take_room(self) -> None:
        if not self._room.acquire(timeout=ANSWER_TIMEOUT_S):
            raise RuntimeError(f"no answer within {ANSWER_TIMEOUT_S} s: {self._error or 'silence'}")

    def close(self) -> None:
        """Half-closes and waits for the end."""
        self._outbox.put(None)
        self._reader.join(30)

    def _read(self) -> None:
        for answer in self._call:
            if answer.startswith(b"\n"):
                self._error = pb.ModelStreamInferResponse.FromString(answer).error_message
                return
            self._room.release()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
