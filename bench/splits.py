"""What a split adds to `Core.resolve`, which each request asks once: timed alone, in here."""

from timeit import repeat

from bench.figures import Row
from trivet.backends.api import Executor, NotFound, ServingError, Signature, Sink
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.model import Model
from trivet.server.models.routing import Routers
from trivet.server.models.traffic import EVEN, Traffic, parse_traffic
from trivet.server.scheduling.statistics import ModelStatistics

BAR_US = 1.0
SPLIT = parse_traffic("[labels]\nstable = 1\ncanary = 2\n[split]\nstable = 95\ncanary = 5")
KEYS = {"without a key": "", "by a key": "4711"}
CALLS = 20_000


class Nobody(Executor):
    """Of a model that is resolved, and not asked."""

    def submit(self, request: object, sink: Sink) -> None:  # noqa: ARG002
        sink.fail(ServingError("nobody computes here"))

    async def drain(self) -> None:
        """Has nothing under way."""

    async def close(self) -> None:
        """Owns nothing."""

    def is_ready(self) -> bool:
        return True


def bench_splits(_seconds: float, rounds: int) -> list[Row]:
    """The best of many rounds: what is slower was somebody else."""
    rows = []
    for told, key in KEYS.items():
        bare, ours = (_us(traffic, key, 10 * rounds) for traffic in (EVEN, SPLIT))
        note = f"{ours:.3f} us next to {bare:.3f}"
        rows.append(
            Row(
                f"Core.resolve with a split, {told}", "us", ours, bare, BAR_US,
                is_difference=True, note=note,
            )
        )  # fmt: skip
    return rows


def _us(traffic: Traffic, key: str, rounds: int) -> float:
    routers = Routers(lambda name: NotFound(name))
    routers.replace("m", {number: _model(number) for number in (1, 2)}, {}, traffic)
    resolve = routers.resolve
    taken_s = min(repeat(lambda: resolve("m", None, key), number=CALLS, repeat=rounds))
    return 1e6 * taken_s / CALLS


def _model(version: int) -> Model:
    return Model(
        "m",
        version,
        ModelConfig(name="m"),
        Signature.from_config(ModelConfig()),
        Nobody(),
        ModelStatistics("m", version),
        None,
    )
