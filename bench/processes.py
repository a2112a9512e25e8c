"""Starts and stops the server under test and the bare echoes, each in a process of its own."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.load import Load

LISTENING = re.compile(r"(HTTP|gRPC|metrics) .*?127\.0\.0\.1:(\d+)")
START_TIMEOUT_S = 60
HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Listener:
    """A running process and its ports by protocol, "http" and "grpc"."""

    pid: int
    ports: dict[str, int]


@contextmanager
def trivet(
    repository: Path, *flags: str, root: Path = HERE, core: int | None = None
) -> Iterator[Listener]:
    """Our server over a repository, ready; `root`: the checkout that it comes from; `core`: all its
    processes run on that one."""
    command = [] if core is None else ["taskset", "-c", str(core)]
    command += [sys.executable, "-m", "trivet", "serve", str(repository.absolute())]
    command += ["--log-warning=false"]
    command += ["--http-port=0", "--grpc-port=0", "--metrics-port=0", *flags]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=root, env=environment_of(root)
        )
        try:
            yield Listener(process.pid, _wait_until_ready(process, output.fileno()))
        finally:
            process.terminate()
            process.wait(60)


def environment_of(root: Path) -> dict[str, str]:
    """`trivet` comes from the root, the bench's own modules from here."""
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{HERE}"}


def _wait_until_ready(process: "subprocess.Popen[bytes]", output: int) -> dict[str, int]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        text = Path(f"/proc/self/fd/{output}").read_text()
        ports = {name.lower(): int(port) for name, port in LISTENING.findall(text)}
        if {"http", "grpc"} <= ports.keys() and is_ready(ports["http"]):
            return ports
        time.sleep(0.1)
    raise RuntimeError("the server did not get ready:\n" + text)


def is_ready(port: int) -> bool:
    """Whether a server of KServe's HTTP protocol answers there, and says so."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def echo(kind: str, core: int | None = None) -> Iterator[Listener]:
    """A bare echo of `bench.echo`; `core`: it runs on that one."""
    command = [] if core is None else ["taskset", "-c", str(core)]
    command += [sys.executable, "-m", "bench.echo", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield Listener(process.pid, {kind.partition("-")[0].replace("aiohttp", "http"): port})
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def run_load(load: Load) -> dict[str, float]:
    """The figures of one load, from a client process."""
    return _figures(["-m", "bench.load"], json.dumps(asdict(load)))


def run_inprocess(model: Path, batch: int, num_tokens: int, seconds: float) -> dict[str, float]:
    """The figures of ONNX Runtime alone."""
    arguments = [str(model), str(batch), str(num_tokens), str(seconds)]
    return _figures(["-m", "bench.inprocess", *arguments], "")


def run_module(module: str, *arguments: str) -> dict[str, float]:
    """The figures that a module of the bench prints."""
    return _figures(["-m", module, *arguments], "")


def run_python(python: str, *arguments: str) -> dict[str, float]:
    """The figures that a script prints which is run by the Python of another environment."""
    return _figures(list(arguments), "", python)


def _figures(arguments: list[str], text: str, python: str = sys.executable) -> dict[str, float]:
    done = subprocess.run(
        [python, *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
