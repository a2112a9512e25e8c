"""Triton's server out of the wheel `nvidia-pytriton`, with an identity backend in C."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers.repository import write_repository
from bench.processes import START_TIMEOUT_S, Listener, is_ready

WHEEL = "TRIVET_BENCH_TRITON"
PYTHON = "TRIVET_BENCH_TRITON_PYTHON"
HOW_TO_GET_IT = f"""no Triton to compare with. Its wheel is unpacked, not installed:
  pip download --no-deps nvidia-pytriton==0.7.0 && unzip nvidia_pytriton-*.whl -d WHEEL
  python -m venv VENV && VENV/bin/pip install 'numpy<2'
Set {WHEEL}=WHEEL, and {PYTHON}=VENV/bin/python for its Python models."""
FACTS = """
import json, sys, sysconfig
version = f"{sys.version_info.major}.{sys.version_info.minor}"
paths = sysconfig.get_paths()
print(json.dumps([version, sysconfig.get_config_var("LIBDIR"), paths["purelib"], sys.prefix]))
"""


class NoTriton(Exception):
    """It is not here; the text says how to get it."""


@contextmanager
def triton(folder: Path, core: int) -> Iterator[Listener]:
    """The server, ready, with all its processes on one core. Raises NoTriton."""
    wheel, python = find_triton()
    home = Path(wheel).absolute() / "pytriton/tritonserver"
    version, library, packages, prefix = _facts(python)
    write_repository(folder / "triton-models", "copying")
    _write_backends(home, version, folder / "backends")
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{Path(wheel).absolute()}/nvidia_pytriton.libs:{library}",
        "PATH": f"{prefix}/bin:{os.environ['PATH']}",
        "PYTHONPATH": packages,
    }
    http, grpc = _free_ports(2)
    command = ["taskset", "-c", str(core), str(home / "bin/tritonserver")]
    command += [f"--model-repository={folder}/triton-models", "--allow-metrics=false"]
    command += [f"--backend-directory={folder}/backends", "--model-control-mode=none"]
    command += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
    command += [f"--http-port={http}", f"--grpc-port={grpc}", "--exit-timeout-secs=1"]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            _wait(process, http, output.fileno())
            yield Listener(process.pid, {"http": http, "grpc": grpc})
        finally:
            # Asked to stop it waits for connections that nobody holds any more.
            process.kill()
            process.wait()


def find_triton() -> tuple[str, str]:
    """Its wheel, and the Python of its Python models. Raises NoTriton."""
    wheel, python = os.environ.get(WHEEL), os.environ.get(PYTHON)
    if not wheel or not python:
        raise NoTriton(HOW_TO_GET_IT)
    return wheel, python


def _facts(python: str) -> list[str]:
    """Version, folder of libpython, folder of packages, prefix."""
    done = subprocess.run([python, "-c", FACTS], capture_output=True, text=True, check=True)
    facts: list[str] = json.loads(done.stdout)
    return facts


def _write_backends(home: Path, version: str, backends: Path) -> None:
    shutil.copytree(home / "backends", backends)
    stub = backends / "python/triton_python_backend_stub"
    shutil.copy(home / "python_backend_stubs" / version / stub.name, stub)
    (home / "bin/tritonserver").chmod(0o755)
    stub.chmod(0o755)
    (backends / "copying").mkdir()
    library = backends / "copying/libtriton_copying.so"
    source = Path(__file__).with_name("identity.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in listeners]
    for each in listeners:
        each.close()
    return ports


def _wait(process: "subprocess.Popen[bytes]", port: int, output: int) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if is_ready(port):
            return
        time.sleep(0.1)
    text = Path(f"/proc/self/fd/{output}").read_text()
    raise RuntimeError(f"Triton did not get ready:\n{text}")
