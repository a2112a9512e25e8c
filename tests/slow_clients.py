"""Clients that take their time over a request or over its answer, each with its own connection."""

import asyncio
import json
import socket

import numpy as np
from grpc_peer import Peer, head, message
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.http2 import frames
from trivet.server.grpc.http2.frames import END_STREAM, PREFACE, Kind, Setting, frame

PAUSE_S = 0.1
NUM_PAUSES = 10
VALUES = np.random.default_rng(1).random(12_288, np.float32)
"""What all ask with and are answered: 48 KiB, which HTTP/2 lets through without asking."""


def http_request(model: str) -> bytes:
    values = VALUES.tobytes()
    size = {"binary_data_size": len(values)}
    given = {"name": "INPUT0", "shape": [VALUES.size], "datatype": "FP32", "parameters": size}
    document = {"inputs": [given], "parameters": {"binary_data_output": True}}
    header = json.dumps(document).encode()
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        "Host: a",
        "Connection: close",
        f"Inference-Header-Content-Length: {len(header)}",
        f"Content-Length: {len(header) + len(values)}",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + header + values


def is_right_over_http(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(VALUES.tobytes())


async def write_slowly_over_http(server: RunningServer, model: str) -> bool:
    """The last bytes come one by one. Whether the answer is right."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    request = http_request(model)
    writer.write(request[:-NUM_PAUSES])
    for byte in request[-NUM_PAUSES:]:
        await asyncio.sleep(PAUSE_S)
        writer.write(bytes((byte,)))
    answer = await reader.read()
    writer.close()
    return is_right_over_http(answer)


async def read_slowly_over_http(server: RunningServer, model: str) -> bool:
    """Sip by sip, with little room between. Whether the answer is right."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", server.http_port))
        await loop.sock_sendall(client, http_request(model))
        answer = b""
        while sip := await loop.sock_recv(client, VALUES.nbytes // NUM_PAUSES):
            answer += sip
            await asyncio.sleep(PAUSE_S)
    return is_right_over_http(answer)


# -- gRPC ------------------------------------------------------------------------------------------


def grpc_request(model: str) -> bytes:
    asked = pb.ModelInferRequest(model_name=model, raw_input_contents=[VALUES.tobytes()])
    asked.inputs.add(name="INPUT0", datatype="FP32", shape=[VALUES.size])
    return message(asked.SerializeToString())


def is_whole(answer: bytes) -> bool:
    return len(answer) >= 5 and len(answer) == 5 + int.from_bytes(answer[1:5], "big")


def is_right_over_grpc(answer: bytes) -> bool:
    contents = pb.ModelInferResponse.FromString(answer[5:]).raw_output_contents
    return list(contents) == [VALUES.tobytes()]


async def connect(server: RunningServer, window_bytes: int) -> Peer:
    """`window_bytes`: of an answer may be sent before the client says more."""
    peer = Peer(*await asyncio.open_connection("127.0.0.1", server.grpc_port))
    peer.send(PREFACE, frames.settings({Setting.INITIAL_WINDOW_SIZE: window_bytes}))
    peer.send(head(1, (":path", "/inference.GRPCInferenceService/ModelInfer")))
    return peer


def send(peer: Peer, data: bytes) -> None:
    """In frames as long as they may be."""
    for place in range(0, len(data), 16_384):
        peer.send(frame(Kind.DATA, 0, 1, data[place : place + 16_384]))


async def write_slowly_over_grpc(server: RunningServer, model: str) -> bool:
    """The last bytes come one by one, each in a frame. Whether the answer is right."""
    peer = await connect(server, 65_535)
    request = grpc_request(model)
    send(peer, request[:-NUM_PAUSES])
    for byte in request[-NUM_PAUSES:]:
        await asyncio.sleep(PAUSE_S)
        send(peer, bytes((byte,)))
    peer.send(frame(Kind.DATA, END_STREAM, 1))
    answer = b""
    while not is_whole(answer):
        answer += (await peer.until(Kind.DATA, 1))[1]
    peer.writer.close()
    return is_right_over_grpc(answer)


async def read_slowly_over_grpc(server: RunningServer, model: str) -> bool:
    """Lets the server send sip by sip; the rest is the server's to keep. Whether the answer is
    right."""
    peer = await connect(server, 0)
    send(peer, grpc_request(model))
    peer.send(frame(Kind.DATA, END_STREAM, 1))
    sip_bytes = VALUES.nbytes // NUM_PAUSES
    answer, allowed_bytes = b"", 0
    while not is_whole(answer):
        await asyncio.sleep(PAUSE_S)
        peer.send(frames.window_update(1, sip_bytes))
        allowed_bytes += sip_bytes
        while len(answer) < allowed_bytes and not is_whole(answer):
            answer += (await peer.until(Kind.DATA, 1))[1]
    peer.writer.close()
    return is_right_over_grpc(answer)
