"""Three steps on a GPU through the server: what is copied and waited for between them.

`python -m bench.gpu.ensemble` runs it alone; with `--cpu` on the CPU, to try the bench itself.
"""

import re
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.figures import Row
from bench.messages import write_request
from bench.processes import run_load, trivet
from trivet.backends.device.nvml import Gpus

WIDTH = 4096
CONCURRENCY = 64
STEPS = ("gpu_first", "gpu_middle", "gpu_last")
BETWEEN = ("host", "gather", "scatter", "host_to_device", "device_to_host")
"""Kinds of copies that no step may make of a tensor that stays on the GPU."""
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)


def why_skipped() -> str:
    """Why there is nothing to measure; empty where there is a GPU for PyTorch."""
    gpus = Gpus.find()
    if not gpus.all:
        return gpus.why_none
    import torch

    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} sees no GPU"


def run(seconds: float = 4.0, kind: str = "KIND_GPU") -> list[Row]:
    """The rows; none without a GPU, having said why."""
    reason = why_skipped() if kind == "KIND_GPU" else ""
    if reason:
        print(f"gpu ensemble: skipped, {reason}", flush=True)
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder / "models", kind)
        port = _free_port()
        with trivet(folder / "models", f"--metrics-port={port}") as ours:
            values = {"X": np.ones((1, WIDTH), np.float32)}
            chain = write_request(folder, "gpu_chain", values, b"Y")
            single = write_request(folder, "gpu_first", values, b"Y")
            alone = run_load(single.load("grpc", ours, CONCURRENCY, seconds))
            before = _counters(port)
            found = run_load(chain.load("grpc", ours, CONCURRENCY, seconds))
            after = _counters(port)
    counts = {key: after[key] - before.get(key, 0) for key in after}
    return _rows(found, alone, counts, bar=0 if kind == "KIND_GPU" else None)


def write_models(folder: Path, kind: str) -> None:
    """Three programs that compute, and the ensemble of them."""
    import torch

    class Step(torch.nn.Module):
        def forward(self, X: torch.Tensor) -> torch.Tensor:  # noqa: N803 - the tensor's name
            return X * 0.5 + 0.25

    example = torch.ones(2, WIDTH)
    program = torch.export.export(
        Step(), (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    for model in STEPS:
        (folder / model / "1").mkdir(parents=True)
        torch.export.save(program, folder / model / "1" / "model.pt2")
        gpus = "gpus: [0]" if kind == "KIND_GPU" else ""
        (folder / model / "config.pbtxt").write_text(
            f'backend: "pytorch" max_batch_size: {CONCURRENCY}\n'
            f'input {{ name: "X" data_type: TYPE_FP32 dims: [{WIDTH}] }}\n'
            f'output {{ name: "Y" data_type: TYPE_FP32 dims: [{WIDTH}] }}\n'
            f"dynamic_batching {{ }} instance_group {{ kind: {kind} count: 1 {gpus} }}\n"
        )
    tensors = ("X", "FIRST", "SECOND", "Y")
    steps = "\n".join(
        f'step {{ model_name: "{model}" model_version: -1 '
        f'input_map {{ key: "X" value: "{tensors[n]}" }} '
        f'output_map {{ key: "Y" value: "{tensors[n + 1]}" }} }}'
        for n, model in enumerate(STEPS)
    )
    (folder / "gpu_chain" / "1").mkdir(parents=True)
    (folder / "gpu_chain" / "config.pbtxt").write_text(
        f'platform: "ensemble" ensemble_scheduling {{ {steps} }}\n'
    )


def _rows(
    found: Mapping[str, float],
    alone: Mapping[str, float],
    counts: Mapping[tuple[str, ...], float],
    bar: float | None,
) -> list[Row]:
    middle = STEPS[1]
    copied = sum(
        count for (metric, model, kind), count in counts.items()
        if metric == "trivet_tensor_copied_bytes_total" and model == middle and kind in BETWEEN
    )  # fmt: skip
    waits = counts.get(("trivet_host_synchronisations_total", middle, ""), 0)
    first, last = STEPS[0], STEPS[2]
    back = counts.get(("trivet_tensor_copied_bytes_total", first, "device_to_host"), 0)
    again = counts.get(("trivet_tensor_copied_bytes_total", last, "host_to_device"), 0)
    where = f"3-step ensemble, {WIDTH} floats, c={CONCURRENCY}"
    return [
        Row(f"{where}: next to one step", "requests/s", found["rate_per_s"], alone["rate_per_s"],
            None),
        Row(f"{where}: host bytes between steps", "bytes", copied + back + again, 0, bar,
            is_difference=True),
        Row(f"{where}: host waits of the middle step", "waits", waits, 0, bar, is_difference=True),
    ]  # fmt: skip


def _counters(port: int) -> dict[tuple[str, ...], float]:
    """(metric, model, kind) -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    counts: dict[tuple[str, ...], float] = {}
    for name, labels, value in _SAMPLE.findall(text):
        given = dict(part.split("=", 1) for part in labels.replace('"', "").split(",") if part)
        if name.startswith(("trivet_tensor_copied", "trivet_host_sync")):
            counts[name, given.get("model", ""), given.get("kind", "")] = float(value)
    return counts


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    for row in run(kind="KIND_CPU" if "--cpu" in sys.argv[1:] else "KIND_GPU"):
        print(f"{row.cell}: {row.ours:,.1f} {row.unit} (bare {row.bare:,.1f}) {row.verdict}")
