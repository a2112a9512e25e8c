"""How many of our files a warm infer over HTTP enters: each is a hop that all requests pay."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import orjson
from serving import write_identity

import trivet
from trivet.server.app import Server
from trivet.server.settings import Settings
from trivet.server.sockets import loop_factory

MAX_FILES = 22
WARM_UP = 100
"""Requests before the one that is traced: by then plans are kept and the model runs inline."""
_TREE = Path(trivet.__file__).parent
_ROOMS = [str((_TREE / name).resolve()) for name in ("server", "backends", "ensembles")]


def _post(values: np.ndarray) -> bytes:
    tensor = {
        "name": "INPUT0",
        "datatype": "FP32",
        "shape": list(values.shape),
        "parameters": {"binary_data_size": values.nbytes},
    }
    header = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    head = (
        "POST /v2/models/identity/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Inference-Header-Content-Length: {len(header)}\r\n"
        f"Content-Length: {len(header) + values.nbytes}\r\n\r\n"
    )
    return head.encode() + header + values.tobytes()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, post: bytes
) -> bytes:
    """The body of the answer."""
    writer.write(post)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().splitlines()
        if line.startswith(b"content-length:")
    )
    return await reader.readexactly(length)


@contextmanager
def _traced() -> Iterator[dict[str, int]]:
    """The files of ours that this thread enters, with how many calls."""
    entered: dict[str, int] = {}

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            entered[name] = entered.get(name, 0) + 1

    sys.setprofile(look)
    try:
        yield entered
    finally:
        sys.setprofile(None)


async def _warm_infer(repository: Path) -> dict[str, int]:
    """The files and calls of one warm request of 16 floats."""
    settings = Settings(
        model_repository=(repository,),
        http_port=0,
        http_address="127.0.0.1",
        allow_grpc=False,
        allow_metrics=False,
        model_control_mode="none",
    )
    server = Server(settings)
    await server.start()
    try:
        address = server.frontends.addresses["HTTP"]
        port = int(address.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        values = np.arange(16, dtype=np.float32).reshape(1, 16)
        post = _post(values)
        for _ in range(WARM_UP):
            await _exchange(reader, writer, post)
        with _traced() as entered:
            body = await _exchange(reader, writer, post)
        assert body.endswith(values.tobytes())
        writer.close()
    finally:
        await server.stop()
    return _ours(entered)


def _ours(entered: dict[str, int]) -> dict[str, int]:
    ours = {}
    for name, calls in entered.items():
        path = str(Path(name).resolve()) if Path(name).exists() else name
        room = next((room for room in _ROOMS if path.startswith(room)), None)
        if room is not None:
            ours[path.removeprefix(str(Path(room).parent))] = calls
    return ours


def test_a_warm_infer_enters_few_files(tmp_path: Path) -> None:
    write_identity(tmp_path, "identity", more="dynamic_batching { }")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        entered = runner.run(_warm_infer(tmp_path))
    told = "\n".join(f"{calls:4} {name}" for name, calls in sorted(entered.items()))
    assert len(entered) <= MAX_FILES, f"{len(entered)} files:\n{told}"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        write_identity(Path(folder), "identity", more="dynamic_batching { }")
        for name, calls in sorted(runner.run(_warm_infer(Path(folder))).items()):
            print(calls, name)
