"""A client of HTTP/1.1 that sends what a test says, byte by byte if need be."""

import asyncio

import orjson
from patience import patience


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *requests: bytes) -> None:
        self.writer.write(b"".join(requests))

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(patience()):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split()[1]), headers, body

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.send(data)
        return await self.answer()

    async def is_closed(self) -> bool:
        async with asyncio.timeout(patience()):
            return await self.reader.read(1) == b""

    async def values(self) -> list[float]:
        """Of the one output of the next answer, which is a good one in JSON."""
        status, _, body = await self.answer()
        assert status == 200, body
        values: list[float] = orjson.loads(body)["outputs"][0]["data"]
        return values
