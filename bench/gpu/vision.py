"""A small vision model through PyTorch, ONNX Runtime and TensorRT, next to their own loops.

`python -m bench.gpu.vision` runs it alone; with `--cpu` on the CPU, to try the bench itself.
`python -m bench.gpu.vision loop FRAMEWORK FILE BATCH SECONDS` prints one loop's figures as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import Figures, Measure, Row, alternate, better
from bench.gpu.ensemble import why_skipped
from bench.messages import write_request
from bench.processes import run_load, run_module, trivet

SIZE = 64
CLASSES = 100
BATCHES = (8, 32, 64)
MAX_BATCH = BATCHES[-1]
CONCURRENCY = 2 * MAX_BATCH
BAR = 0.95
PYTORCH, ONNX, TENSORRT = "pytorch", "onnxruntime", "tensorrt"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def run(seconds: float = 2.0, rounds: int = 2, kind: str = "KIND_GPU") -> list[Row]:
    """The rows of the frameworks that are installed for GPUs; having said why where one is not."""
    reason = why_skipped() if kind == "KIND_GPU" else ""
    if reason:
        print(f"gpu vision: skipped, {reason}", flush=True)
        return []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for framework in _frameworks(kind):
            folder = Path(name) / framework
            file = write_model(folder, framework, kind)
            rows.append(_measured(folder, framework, file, seconds, rounds, kind))
    return rows


def _frameworks(kind: str) -> list[str]:
    if kind == "KIND_CPU":
        return [PYTORCH, ONNX]
    import onnxruntime

    from trivet.backends.api import LoadFailed
    from trivet.backends.tensorrt.library import load_tensorrt

    found = [PYTORCH]
    if CUDA in onnxruntime.get_available_providers():
        found.append(ONNX)
    else:
        print(f"gpu vision: ONNX Runtime {onnxruntime.__version__} has no {CUDA}", flush=True)
    try:
        return [*found, TENSORRT] if not load_tensorrt().is_rtx else found
    except LoadFailed as error:
        print(f"gpu vision: {error.message}", flush=True)
        return found


def network() -> Any:
    """A small residual network with random weights, the same ones each time."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.layers(x))

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.ReLU(), Block(64), Block(64),
        nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(), Block(128), Block(128),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES),
    ).eval()  # fmt: skip


def write_onnx(target: Path) -> None:
    """The network as ONNX."""
    import torch

    torch.onnx.export(
        network(), (torch.zeros(2, 3, SIZE, SIZE),), str(target), dynamo=True, verbose=False,
        input_names=["images"], output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch", max=4096)},), external_data=False,
    )  # fmt: skip


def write_pt2(target: Path) -> None:
    """The network as a program of torch.export."""
    import torch

    dims = {0: torch.export.Dim("batch", max=4096)}
    example = (torch.zeros(2, 3, SIZE, SIZE),)
    torch.export.save(torch.export.export(network(), example, dynamic_shapes=(dims,)), target)


def write_model(folder: Path, framework: str, kind: str) -> Path:
    """The repository of one model; returns the model's file."""
    version = folder / "vision" / "1"
    version.mkdir(parents=True)
    file = version / {PYTORCH: "model.pt2", ONNX: "model.onnx", TENSORRT: "model.plan"}[framework]
    if framework == PYTORCH:
        write_pt2(file)
    elif framework == ONNX:
        write_onnx(file)
    else:
        from trivet.backends.tensorrt.backend import BACKEND

        onnx = folder / "vision.onnx"
        write_onnx(onnx)
        print(BACKEND.build(onnx, file, {"max_batch_size": MAX_BATCH}), flush=True)
        onnx.unlink()
    tensors = (
        f'input {{ name: "images" data_type: TYPE_FP32 dims: [3, {SIZE}, {SIZE}] }}\n'
        f'output {{ name: "scores" data_type: TYPE_FP32 dims: [{CLASSES}] }}\n'
    )
    (folder / "vision" / "config.pbtxt").write_text(
        f'backend: "{framework}" max_batch_size: {MAX_BATCH} dynamic_batching {{ }}\n{tensors}'
        f"instance_group {{ kind: {kind} count: {2 if kind == 'KIND_GPU' else 1} }}\n"
    )
    return file


def _measured(
    folder: Path, framework: str, file: Path, seconds: float, rounds: int, kind: str
) -> Row:
    with trivet(folder) as ours:
        image = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
        request = write_request(folder, "vision", {"images": image}, b"scores")
        load = request.load("grpc", ours, CONCURRENCY, seconds, 1.0)
        provider = CPU if kind == "KIND_CPU" else CUDA
        sides: dict[str, Measure] = {"server": lambda: run_load(load)}
        for batch in BATCHES:
            arguments = (framework, str(file), str(batch), str(seconds), provider)
            sides[str(batch)] = lambda given=arguments: run_module(  # type: ignore[misc]  # binds the loop's value
                "bench.gpu.vision", "loop", *given
            )
        found = alternate(sides, rounds)
    for batch in BATCHES:
        print(f"  {framework} loop, batch {batch}: {found[str(batch)]['rate_per_s']:,.0f}/s")
    best: Figures = better(*(found[str(batch)] for batch in BATCHES))
    return Row(
        f"vision {SIZE}x{SIZE}, {framework}, c={CONCURRENCY}", "images/s",
        found["server"]["rate_per_s"], best["rate_per_s"], BAR,
    )  # fmt: skip


def loop(framework: str, file: Path, batch: int, seconds: float, provider: str) -> Figures:
    """Images a second of a framework alone: host to device, computed, device to host."""
    images = np.random.default_rng(0).random((batch, 3, SIZE, SIZE), np.float32)
    make = {PYTORCH: _pytorch, ONNX: _onnx, TENSORRT: _tensorrt}[framework]
    step = make(file, images, provider)
    for _ in range(10):
        step()
    count, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        step()
        count += batch
    return {"rate_per_s": count / (time.perf_counter() - started_s)}


def _onnx(file: Path, images: np.ndarray, provider: str) -> Callable[[], Any]:
    import onnxruntime

    if provider == CUDA:
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(str(file), providers=[provider])
    assert session.get_providers()[0] == provider, "no silent fallback"
    return lambda: session.run(None, {"images": images})


def _pytorch(file: Path, images: np.ndarray, provider: str) -> Callable[[], Any]:
    import torch

    device = torch.device("cuda" if provider == CUDA else "cpu")
    module = torch.export.load(file).module().to(device)
    given = torch.from_numpy(images)
    given = given.pin_memory() if provider == CUDA else given

    def step() -> torch.Tensor:
        with torch.inference_mode():
            scores: torch.Tensor = module(given.to(device, non_blocking=True))
            return scores.cpu()

    return step


def _tensorrt(file: Path, images: np.ndarray, _: str) -> Callable[[], Any]:
    from trivet.backends.device.cuda import open_gpu
    from trivet.backends.tensorrt.library import load_tensorrt
    from trivet.backends.tensorrt.plan_file import open_engine

    gpu = open_gpu(0)
    stream = gpu.new_stream()
    opened = open_engine(load_tensorrt(), file, runs_host_code=False)
    context = opened.engine.create_execution_context()
    scores = np.empty((len(images), CLASSES), np.float32)
    given, made = (gpu.allocate(each.nbytes, stream) for each in (images, scores))
    pinned_in, pinned_out = (gpu.new_pinned(each.nbytes) for each in (images, scores))
    pinned_in[:] = images.view(np.uint8).ravel()
    context.set_input_shape("images", images.shape)
    context.set_tensor_address("images", given.address)
    context.set_tensor_address("scores", made.address)

    def step() -> None:
        stream.copy(given.address, pinned_in.ctypes.data, images.nbytes)
        context.execute_async_v3(stream.handle)
        stream.copy(pinned_out.ctypes.data, made.address, scores.nbytes)
        stream.record().wait()

    return step


def main(arguments: list[str]) -> None:
    """One loop's figures, or the rows."""
    if arguments[:1] == ["loop"]:
        framework, file, batch, seconds, provider = arguments[1:]
        print(json.dumps(loop(framework, Path(file), int(batch), float(seconds), provider)))
        return
    for row in run(kind="KIND_CPU" if "--cpu" in arguments else "KIND_GPU"):
        print(f"{row.cell}: {row.ours:,.0f} {row.unit} / {row.bare:,.0f} {row.verdict}")


if __name__ == "__main__":
    main(sys.argv[1:])
