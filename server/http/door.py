"""The one way in: each request is named, checked, sent to its handler, and its errors answered."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.hdrs import CONTENT_ENCODING, HOST, TRANSFER_ENCODING
from aiohttp.http import RawRequestMessage
from multidict import istr

from trivet.backends.api import ServingError
from trivet.server.http.admission import Admission
from trivet.server.http.answers import Answer, error_answer, fault_answer, refusal_of, target_text
from trivet.server.http.connection import Connection
from trivet.server.http.deadline import HEADER as TIMEOUT
from trivet.server.http.deadline import answer_within, timeout_of
from trivet.server.http.errors import HttpError
from trivet.server.http.gate import Gate
from trivet.server.http.limits import MAX_REQUEST_ID_BYTES
from trivet.server.http.routes import Call, RouteTable, Target
from trivet.server.http.sinks import Exchange
from trivet.server.tracing.arrival import Arrival, current_arrival
from trivet.server.tracing.tracing import Tracing

_log = logging.getLogger(__name__)
NO_FAULTS: Mapping[str, Callable[[str, HttpError], Answer]] = {}
_REQUEST_ID = istr("x-request-id")
_NO_ROUTE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
_REMEMBERED_PATHS = 4096
_REMEMBERED_CHARACTERS = 512
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(:[0-9]{1,5})?")


class RequestIds:
    """Names for requests that come without one: unique to this process and its requests."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def make(self) -> str:
        """A new name."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def of(self, headers: Mapping[str, str]) -> str:
        """The client's own name for the request where it can go into a log line and a header."""
        given = headers.get(_REQUEST_ID)
        if given and len(given) <= MAX_REQUEST_ID_BYTES and given.isascii() and given.isprintable():
            return given
        return self.make()


class Door:
    """Answers every request exactly once; no exception leaves it but cancellation."""

    def __init__(
        self,
        routes: RouteTable,
        ids: RequestIds,
        gate: Gate | None = None,
        tracing: Tracing | None = None,
        faults: Mapping[str, Callable[[str, HttpError], Answer]] = NO_FAULTS,
    ) -> None:
        """Without a gate everybody may ask, from anywhere. `faults`: what is answered under a
        path's beginning where no route is, in the form of the API that is there."""
        self._faults = faults
        self._tracing = tracing or Tracing()
        self._routes = routes
        self._ids = ids
        self._gate = gate
        self._at_once: dict[str, Target] = {}
        """By raw path: routes that were found, and may be answered without a task."""

    def begin(
        self, message: RawRequestMessage, payload: StreamReader, connection: Connection
    ) -> bool:
        """Begins to answer a request by callbacks; False: `handle` is to be called.

        That is what most requests are: all here, as the latest HTTP/1 has it, and nothing about it
        that has to be asked or waited for.
        """
        target = self._at_once.get(message.path)
        if (
            target is None
            or message.method != target.route.method
            or message.version != HttpVersion11
            or self._tracing.tracer is not None
            or not payload.is_eof()
            or message.chunked
            or _log.isEnabledFor(logging.DEBUG)
        ):
            return False
        headers = message.headers
        host = headers.get(HOST)
        if TIMEOUT in headers or CONTENT_ENCODING in headers or (host and not is_host(host)):
            return False
        begin = target.route.begin
        assert begin is not None
        exchange = Exchange(
            connection,
            message,
            self._ids.of(headers),
            target.model,
            target.version,
            payload.read_nowait(),
        )
        connection.hold(exchange.give_up)
        exchange.run(begin)
        return True

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.mark_busy()
        request_id = self._ids.of(request.headers)
        started_s = time.monotonic()
        admission = None if self._gate is None else self._gate.meet(request)
        try:
            if self._tracing.tracer is None:
                answer = await self._answer(request, request_id, admission)
            else:
                answer = await self._traced(request, request_id, admission)
        finally:
            connection.mark_idle()
        if _log.isEnabledFor(logging.DEBUG):
            _note_access(request, request_id, answer.status, started_s)
        if isinstance(answer, Answer):
            if connection.is_leaving:
                answer.force_close()
            answer.request_id = request_id
            if admission is not None:
                answer.more_headers = admission.headers()
        return answer

    async def _traced(
        self, request: web.BaseRequest, request_id: str, admission: Admission | None
    ) -> web.StreamResponse:
        traceparent = request.headers.get("traceparent")
        arrival = Arrival("HTTP", traceparent, sends_later=True)
        current_arrival.set(arrival)
        answer: web.StreamResponse | None = None
        try:
            answer = await self._answer(request, request_id, admission)
            arrival.sending()
        finally:
            # Streams have been sent by now, and what was cancelled never will be.
            if isinstance(answer, Answer):
                answer.on_sent = arrival.sent
            else:
                arrival.sent()
        return answer

    async def _answer(
        self, request: web.BaseRequest, request_id: str, admission: Admission | None
    ) -> web.StreamResponse:
        try:
            _check_protocol(request)
            _check_host(request)
            if self._gate is not None and admission is not None:
                permission = self._gate.preflight(request, admission)
                if permission is not None:
                    return permission
            target = self._routes.find(request.method, request.raw_path)
            self._remember(request.raw_path, target)
            call = Call(request, request_id, target.model, target.version, target.region, admission)
            if self._gate is not None and admission is not None:
                refusal = self._gate.admit(request, target.route, admission)
                if refusal is not None:
                    return refusal
            if TIMEOUT not in request.headers or (timeout_s := timeout_of(request)) is None:
                return await target.route.handler(call)
            return await answer_within(timeout_s, target.route, call) or _unsendable(request)
        except ServingError as error:
            return refusal_of(error)
        except HttpError as error:
            return self._fault(request, error)
        except ConnectionError:
            # The client went away; there is nobody to answer.
            return _unsendable(request)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the door: logged once, answered without its text
            where = target_text(request.method, request.raw_path)
            fields = {"request_id": request_id}
            _log.exception("internal error in request %s to %s", request_id, where, extra=fields)
            if request.writer.output_size:
                # A stream is under way: all that can still be said is that it is broken.
                return _unsendable(request)
            return fault_answer(request_id)

    def _fault(self, request: web.BaseRequest, error: HttpError) -> Answer:
        for beginning, answer in self._faults.items():
            if error.status in _NO_ROUTE and request.raw_path.startswith(beginning):
                return answer(target_text(request.method, request.raw_path), error)
        return error_answer(error.status, error.message, error.headers, closes=error.closes)

    def _remember(self, raw_path: str, target: Target) -> None:
        """For `begin`, which asks nobody's leave: not where there is a gate."""
        if self._gate is None and target.route.begin is not None:
            if len(self._at_once) >= _REMEMBERED_PATHS:
                self._at_once.clear()
            if len(raw_path) <= _REMEMBERED_CHARACTERS:
                self._at_once[raw_path] = target


def _note_access(request: web.BaseRequest, request_id: str, status: int, started_s: float) -> None:
    """The line that each request has with --log-verbose=1."""
    fields = {
        "request_id": request_id,
        "method": request.method,
        "path": ascii(request.raw_path[:200])[1:-1],
        "status": status,
        "elapsed_ms": round((time.monotonic() - started_s) * 1e3, 3),
    }
    _log.debug("access", extra=fields)


@lru_cache(maxsize=256)
def is_host(text: str) -> bool:
    """Whether a Host header holds a name or an address, perhaps with a port, and nothing else."""
    return _HOST.fullmatch(text) is not None


def _check_host(request: web.BaseRequest) -> None:
    host = request.headers.get("Host")
    if host is not None and not is_host(host):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the Host header holds no host name", closes=True)


def _check_protocol(request: web.BaseRequest) -> None:
    """What aiohttp lets pass: other versions, and codings of a message that nobody here decodes."""
    if request.version not in (HttpVersion10, HttpVersion11):
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "the request line does not end with HTTP/1.1 or HTTP/1.0, which are spoken here",
            closes=True,
        )
    coding = request.headers.get(TRANSFER_ENCODING)
    if coding is not None and coding.strip().lower() != "chunked":
        raise HttpError(
            HTTPStatus.NOT_IMPLEMENTED,
            f"Transfer-Encoding '{coding[:64]}' is not understood here; 'chunked' is",
            closes=True,
        )


def _unsendable(request: web.BaseRequest) -> Answer:
    """Ends the connection; the answer is never written."""
    if request.transport is not None:
        request.transport.close()
    return Answer(status=HTTPStatus.BAD_REQUEST)
