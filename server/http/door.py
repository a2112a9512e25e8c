"""The one way in: each request is named, checked, sent to its handler, and its errors answered."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.hdrs import TRANSFER_ENCODING

from trivet.backends.api import ServingError
from trivet.server.http.admission import Admission
from trivet.server.http.answers import (
    NO_HEADERS,
    Answer,
    error_answer,
    fault_answer,
    refusal_of,
    target_text,
)
from trivet.server.http.at_once import AtOnce
from trivet.server.http.connection import Connection
from trivet.server.http.deadline import HEADER as TIMEOUT
from trivet.server.http.deadline import answer_within, timeout_of
from trivet.server.http.errors import HttpError
from trivet.server.http.gate import Gate
from trivet.server.http.host import is_host
from trivet.server.http.request_ids import RequestIds
from trivet.server.http.routes import Call, Route, RouteTable
from trivet.server.protocol.versions import version_in
from trivet.server.tracing.arrival import Arrival, current_arrival
from trivet.server.tracing.tracing import Tracing

_log = logging.getLogger(__name__)
NO_FAULTS: Mapping[str, Callable[[str, HttpError], Answer]] = {}
_NO_ROUTE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


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
        self.at_once = AtOnce(ids, self._tracing, _log)
        """For requests that need nobody's leave: none where there is a gate."""

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
            _note_access(request, request_id, answer, started_s)
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
        call: Call | None = None
        try:
            _check_protocol(request)
            _check_host(request)
            if self._gate is not None and admission is not None:
                permission = self._gate.preflight(request, admission)
                if permission is not None:
                    return permission
            target = self._routes.find(request.method, request.raw_path)
            if self._gate is None and target.route.begin is not None:
                self.at_once.remember(request.raw_path, target)
            version = target.version if target.version is not None else version_in(request.headers)
            call = Call(
                request,
                request_id,
                target.model,
                version,
                target.region,
                admission,
                target.response,
            )
            if self._gate is not None and admission is not None:
                refusal = self._gate.admit(request, target.route, admission)
                if refusal is not None:
                    return refusal
            return await _handled(target.route, call)
        except ServingError as error:
            refusal = refusal_of(error)
            if call is not None:
                refusal.told = call.told
            return refusal
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


async def _handled(route: Route, call: Call) -> web.StreamResponse:
    request = call.request
    if TIMEOUT not in request.headers or (timeout_s := timeout_of(request)) is None:
        answer = await route.handler(call)
    else:
        answer = await answer_within(timeout_s, route, call) or _unsendable(request)
    if call.told and isinstance(answer, Answer):
        answer.told = call.told
    return answer


def _note_access(
    request: web.BaseRequest, request_id: str, answer: web.StreamResponse, started_s: float
) -> None:
    """The line that each request has with --log-verbose=1."""
    told = answer.told if isinstance(answer, Answer) else NO_HEADERS
    fields = {
        "request_id": request_id,
        "method": request.method,
        "path": ascii(request.raw_path[:200])[1:-1],
        "status": answer.status,
        "elapsed_ms": round((time.monotonic() - started_s) * 1e3, 3),
        **{name.removeprefix("x-trivet-"): value for name, value in told.items()},
    }
    _log.debug("access", extra=fields)


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
