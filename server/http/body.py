"""Reads request bodies: size, speed and chunk limits, and decompression."""

import asyncio
from http import HTTPStatus

import numpy as np
from aiohttp import StreamReader, web

from trivet.backends.api import InvalidRequest, TooLarge
from trivet.server.http.errors import HttpError
from trivet.server.http.limits import HttpLimits
from trivet.server.protocol.inflate import CODINGS, CutOff, Inflation, NotInflatable, TooLong

Body = bytes | memoryview

_ALIGNMENT_BYTES = 64


async def read_body(
    request: web.BaseRequest, limits: HttpLimits, *, align_at: int | None = None
) -> Body:
    """The whole body, decompressed.

    A large one is copied once, into memory whose byte `align_at` lies on a 64-byte border: there
    the binary tensors begin. Raises TooLarge, InvalidRequest or HttpError (408, 415).
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is None:
        return await _read(request, limits, align_at)
    coding = encoding.strip().lower()
    if coding == "identity":
        return await _read(request, limits, align_at)
    if coding not in CODINGS:
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding '{encoding[:64]}' is not supported; send identity, gzip or deflate",
            headers={"Accept-Encoding": "gzip, deflate, identity"},
        )
    packed = await _read(request, limits, None)
    return await _decompress(packed, coding, limits.max_body_bytes)


async def _read(request: web.BaseRequest, limits: HttpLimits, align_at: int | None) -> Body:
    content = request.content
    size_bytes = request.content_length
    if size_bytes is None:
        if "Transfer-Encoding" not in request.headers:
            return b""
        return await _read_timed(request, limits, None, None)
    if size_bytes > limits.max_body_bytes:
        raise too_large(f"{size_bytes}", limits.max_body_bytes)
    if content.is_eof():
        # It came together with the head, as small bodies do.
        return content.read_nowait()
    return await _read_timed(request, limits, size_bytes, align_at)


async def _read_timed(
    request: web.BaseRequest, limits: HttpLimits, size_bytes: int | None, align_at: int | None
) -> Body:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(limits.body_idle_timeout_s) as timer:
            pace = _Timer(timer, limits)
            if size_bytes is None:
                return await _read_chunked(request.content, limits, pace)
            return await _read_sized(request.content, size_bytes, align_at, pace)
    except TimeoutError:
        raise too_slow(limits) from None


class Pace:
    """Until when more of a body has to come: a pause is too long, and so is too low a mean rate.
    Pure."""

    def __init__(self, limits: HttpLimits, now_s: float) -> None:
        self._limits = limits
        self._earned_until_s = now_s + limits.body_grace_s
        self.due_s = now_s + limits.body_idle_timeout_s

    def arrived(self, size_bytes: int, now_s: float) -> None:
        """So much has come."""
        self._earned_until_s += size_bytes / self._limits.min_body_bytes_per_s
        self.due_s = min(now_s + self._limits.body_idle_timeout_s, self._earned_until_s)


class _Timer:
    """Moves a time-out ahead with each arrival."""

    def __init__(self, timer: asyncio.Timeout, limits: HttpLimits) -> None:
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(limits, self._loop.time())

    def arrived(self, size_bytes: int) -> None:
        self._pace.arrived(size_bytes, self._loop.time())
        self._timer.reschedule(self._pace.due_s)


async def _read_sized(
    content: StreamReader, size_bytes: int, align_at: int | None, pace: _Timer
) -> Body:
    body = aligned_memory(size_bytes, align_at or 0)
    position = 0
    while position < size_bytes:
        data = await content.readany()
        body[position : position + len(data)] = data
        position += len(data)
        pace.arrived(len(data))
    # Text is parsed from bytes; only binary tensors stay views.
    return bytes(body) if align_at is None else body


async def _read_chunked(content: StreamReader, limits: HttpLimits, pace: _Timer) -> bytes:
    pieces: list[bytes] = []
    size_bytes = num_chunks = 0
    while True:
        data, is_chunk_end = await content.readchunk()
        if not data and not is_chunk_end:
            return b"".join(pieces)
        size_bytes += len(data)
        num_chunks += is_chunk_end
        if size_bytes > limits.max_body_bytes:
            raise too_large(f"more than {limits.max_body_bytes}", limits.max_body_bytes)
        if num_chunks > limits.max_chunks:
            raise HttpError(
                HTTPStatus.BAD_REQUEST,
                f"Chunked request body exceeds maximum of {limits.max_chunks} non-empty chunks; "
                "send larger chunks or a Content-Length",
                closes=True,
            )
        pieces.append(data)
        pace.arrived(len(data))


def aligned_memory(size_bytes: int, align_at: int) -> memoryview:
    """Memory whose byte `align_at` lies on a 64-byte border."""
    # Untouched pages of an empty array cost nothing until the client has sent them.
    memory = np.empty(size_bytes + _ALIGNMENT_BYTES, dtype=np.uint8)
    start = -(memory.__array_interface__["data"][0] + align_at) % _ALIGNMENT_BYTES
    return memory.data[start : start + size_bytes]


async def _decompress(packed: Body, coding: str, max_bytes: int) -> Body:
    inflation = Inflation(packed, coding, max_bytes)
    try:
        plain = inflation.begin()
        if plain is None:
            plain = await asyncio.to_thread(inflation.finish)
    except TooLong:
        raise too_large(f"more than {max_bytes}", max_bytes) from None
    except CutOff:
        raise _unfinished(coding) from None
    except NotInflatable:
        raise InvalidRequest(f"the request body is not valid {coding} data") from None
    if inflation.goes_on:
        raise _unfinished(coding)
    return plain


def _unfinished(coding: str) -> InvalidRequest:
    return InvalidRequest(f"the {coding} data of the request body is cut off or goes on")


def too_slow(limits: HttpLimits) -> HttpError:
    """Of a body that a client does not go on to send."""
    return HttpError(
        HTTPStatus.REQUEST_TIMEOUT,
        f"the request body came too slowly: at least {limits.min_body_bytes_per_s} bytes a "
        f"second are expected after {limits.body_grace_s:g} s, and no pause of "
        f"{limits.body_idle_timeout_s:g} s",
        closes=True,
    )


def too_large(size_text: str, max_bytes: int) -> TooLarge:
    """Of a body of more bytes than a client may send."""
    return TooLarge(
        f"request body of {size_text} bytes exceeds the maximum allowed input size of {max_bytes} "
        "bytes. Use --http-max-input-size to increase the limit."
    )
