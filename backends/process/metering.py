"""The metrics that a model in an instance process makes up: both ends of the link."""

import itertools
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress

from trivet.backends.api import InvalidRequest, ServingError, Unavailable
from trivet.backends.api.meters import Meter, MeterChange, MeterKind, Meters
from trivet.backends.process.channel import ChannelClosed, Header
from trivet.backends.process.link import Link
from trivet.backends.process.wire import decode_error, encode_error


class RemoteMeters:
    """The `Meters`, and their store, in an instance process. Any thread may call, `handle` is the
    listening thread's. Who opens a meter or asks for its value waits for the server."""

    def __init__(self, events: Link) -> None:
        self._events = events
        self._tokens = itertools.count()
        self._open: dict[int, Future[float]] = {}
        self._let_go: deque[Meter] = deque()
        """An object may be let go of in the midst of a message, so to say so waits."""
        self.listener = 0
        """The thread that hears the answers, which must not wait for one."""

    def owned(self) -> Meters:
        """See MeterStore: the process is the owner."""
        return self

    def open(self, meter: Meter) -> None:
        """See Meters."""
        self._ask(meter, "open")

    def close(self, meter: Meter) -> None:
        """See Meters."""
        self._let_go.append(meter)

    def change(self, meter: Meter, how: MeterChange, value: float) -> None:
        """See Meters."""
        self.flush()
        self._send(meter, how.value, value=str(value))

    def value(self, meter: Meter) -> float:
        """See Meters."""
        return self._ask(meter, "value")

    def release(self) -> None:
        """The server sees the process end."""

    def flush(self) -> None:
        """Tells the server what is let go of."""
        while self._let_go:
            with suppress(IndexError):  # another thread was faster
                self._send(self._let_go.popleft(), "close")

    def handle(self, header: Header) -> None:
        """An answer."""
        answer = self._open[header["token"]]
        if "error" in header:
            answer.set_exception(decode_error(header))
        else:
            answer.set_result(float(header["value"]))

    def _ask(self, meter: Meter, what: str) -> float:
        if threading.get_ident() == self.listener:
            raise Unavailable("is_ready may change metrics, but neither make nor read any")
        self.flush()
        token, answer = next(self._tokens), Future[float]()
        self._open[token] = answer
        try:
            self._send(meter, what, token=token)
            return answer.result()
        finally:
            self._open.pop(token, None)  # what could not be sent has no answer

    def _send(self, meter: Meter, what: str, **more: object) -> None:
        described = [meter.name, meter.description, meter.kind.value, meter.labels, meter.bounds]
        try:
            self._events.send({"op": "meter", "what": what, "meter": described, **more})
        except ChannelClosed:
            raise Unavailable("the server has ended the connection to this model") from None
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"metric '{meter.name}' cannot be told: {error}") from None


def answer_meter(header: Header, meters: Meters) -> Header | None:
    """The server's side: does what a message says; the answer, for those that want one."""
    token, value = header.get("token"), 0.0
    failed: ServingError | None = None
    try:
        value = _carry_out(header, meters)
    except ServingError as error:
        failed = error
    except (KeyError, TypeError, ValueError) as error:
        failed = InvalidRequest(f"a metric that does not add up: {error!r}")
    if token is None:
        return None
    if failed is not None:
        return {"op": "metered", "token": token, **encode_error(failed)}
    return {"op": "metered", "token": token, "value": str(value)}


def _carry_out(header: Header, meters: Meters) -> float:
    name, description, kind, labels, bounds = header["meter"]
    pairs = None if labels is None else tuple((key, text) for key, text in labels)
    meter = Meter(name, description, MeterKind(kind), pairs, tuple(bounds))
    match header["what"]:
        case "open":
            meters.open(meter)
        case "close":
            meters.close(meter)
        case "value":
            return meters.value(meter)
        case how:
            meters.change(meter, MeterChange(how), float(header["value"]))
    return 0.0
