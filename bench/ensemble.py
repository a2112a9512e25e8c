"""Three identity steps in one ensemble next to one call of the same model, and to three calls."""

import tempfile
from pathlib import Path

import numpy as np

from bench.figures import Measure, Row, alternate, describe
from bench.infer import CONFIG
from bench.messages import write_request
from bench.processes import run_load, trivet

STEPS = ("first", "second", "third")
CONCURRENCY = 64
ONE_CALL_BAR = 0.5
"""The ensemble may cost 2.0 times one call."""
THREE_CALLS_BAR = 2.0
"""And must be worth at least two rounds of three calls."""


def bench_ensemble(seconds: float, rounds: int) -> list[Row]:
    """Requests per second at 64 in flight, of the ensemble and of one of its steps alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_chain(folder / "models")
        values = np.random.default_rng(1).random((1, 16), dtype=np.float32)
        with trivet(folder / "models") as ours:
            sides: dict[str, Measure] = {}
            for model, tensor in (("first", "INPUT0"), ("chain", "X")):
                request = write_request(folder, model, {tensor: values}, values.tobytes())
                for protocol in ("grpc", "http"):
                    load = request.load(protocol, ours, CONCURRENCY, seconds)
                    sides[f"{model} {protocol}"] = lambda load=load: run_load(load)  # type: ignore[misc]  # binds the loop's value
            found = alternate(sides, rounds)
    for side, figures in found.items():
        print(describe(side, figures), flush=True)
    rows = []
    for protocol in ("grpc", "http"):
        chain, one = found[f"chain {protocol}"], found[f"first {protocol}"]
        cell = f"ensemble of 3 identities, {protocol}, c={CONCURRENCY}"
        note = f"server CPU {chain['server_cpu_us']:.0f} / {one['server_cpu_us']:.0f} us"
        rate, single = chain["rate_per_s"], one["rate_per_s"]
        rows.append(Row(f"{cell}, one call", "1/s", rate, single, ONE_CALL_BAR, note=note))
        rows.append(Row(f"{cell}, three calls", "1/s", rate, single / 3, THREE_CALLS_BAR))
    return rows


def write_chain(repository: Path) -> None:
    """Three identity models and the ensemble "chain" of them."""
    for name in STEPS:
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG)
    tensors = ("X", "T1", "T2", "Y")
    steps = "".join(
        f'step {{ model_name: "{name}" input_map {{ key: "INPUT0" value: "{taken}" }} '
        f'output_map {{ key: "OUTPUT0" value: "{made}" }} }}\n'
        for name, taken, made in zip(STEPS, tensors[:-1], tensors[1:], strict=True)
    )
    (repository / "chain/1").mkdir(parents=True)
    text = f'platform: "ensemble"\nensemble_scheduling {{ {steps} }}\n'
    (repository / "chain/config.pbtxt").write_text(text)
