"""Cells of the request path: both commits' servers over one repository, asked in turn."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.against.checkout import Side
from bench.against.comparison import Cost
from bench.against.rounds import Cells
from bench.against.turns import Program, run_in_turns
from bench.ensemble import write_chain
from bench.infer import write_identity
from bench.messages import write_request
from bench.processes import HERE, Listener, trivet

WARM_UP_S = 0.5
"""Enough for a fast model to come to the event loop."""


@dataclass(frozen=True, slots=True)
class Served:
    """One cell: requests to a model over a protocol."""

    part: str
    protocol: str
    concurrency: int

    @property
    def name(self) -> str:
        return f"{self.part}/{self.protocol}/{self.concurrency}"


INFER = [Served("infer", protocol, count) for protocol in ("grpc", "http") for count in (1, 8, 64)]
ENSEMBLE = [
    Served("ensemble", protocol, count) for protocol in ("grpc", "http") for count in (1, 64)
]


class ServedPart:
    """The repository and requests of some cells, written once; servers start anew each round, since
    each process has its own luck with memory and hashes."""

    def __init__(self, cells: Iterable[Served], folder: Path, seconds: float) -> None:
        self._cells = list(cells)
        self._seconds = seconds
        self._warm_up = min(WARM_UP_S, seconds)
        self._repository = folder / "models"
        values = np.random.default_rng(1).random((1, 16), dtype=np.float32)
        write_identity(self._repository)
        write_chain(self._repository)
        self._requests = {
            part: write_request(folder, model, {tensor: values}, values.tobytes())
            for part, model, tensor in (
                ("infer", "identity", "INPUT0"),
                ("ensemble", "chain", "X"),
            )
        }

    @contextmanager
    def open(self, sides: Iterable[Side]) -> Iterator[Cells]:
        """Both servers, running, as measures by cell."""
        with ExitStack() as stack:
            servers = {
                side.name: stack.enter_context(trivet(self._repository, root=side.root))
                for side in sides
            }
            yield {cell.name: partial(self._measure, cell, servers) for cell in self._cells}

    def _measure(self, cell: Served, servers: Mapping[str, Listener]) -> Mapping[str, Cost]:
        request, num_sides = self._requests[cell.part], len(servers)
        clients = {}
        for side, server in servers.items():
            # Twice the time, as the other side has every other turn.
            seconds, warm_up = (num_sides * s for s in (self._seconds, self._warm_up))
            load = request.load(cell.protocol, server, cell.concurrency, seconds, warm_up)
            clients[side] = Program(["bench.load"], HERE, json.dumps(asdict(load)))
        return {
            side: Cost(figures["server_cpu_us"], num_sides * figures["rate_per_s"])
            for side, figures in run_in_turns(clients).items()
        }
