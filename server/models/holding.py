"""Who is asked while it may be held up by whoever asks: it goes on.

A decoupled model waits while those who read its responses have no room. If such a reader asks the
same model for something else meanwhile, and nobody reads until that is answered, both would wait
for ever: the reader for the model, whose thread waits for the reader.
"""

from itertools import chain

from trivet.backends.api import InferRequest, InferResponse, ServingError, Sink, Window


class Holding:
    """The requests of models to each model, while they have no end. Owned by the event loop."""

    def __init__(self) -> None:
        self._open: dict[str, dict[int, InferRequest]] = {}
        self._held: dict[str, dict[int, InferRequest]] = {}
        """Those of them that a reader may hold up."""

    def enter(self, request: InferRequest, sink: Sink) -> Sink:
        """Frees those who must not be held up while it is open: until the sink that this returns
        has its end."""
        name, key = request.model_name, id(request)
        for other in self._held.get(name, {}).values():
            _free(other, request)
        if _windows(request):
            for other in self._open.get(name, {}).values():
                _free(request, other)
            self._held.setdefault(name, {})[key] = request
        self._open.setdefault(name, {})[key] = request
        return _Leaving(self, request, sink)

    def leave(self, request: InferRequest) -> None:
        """It has its end."""
        for requests in (self._open, self._held):
            of_model = requests.get(request.model_name, {})
            if of_model.pop(id(request), None) is not None and not of_model:
                del requests[request.model_name]


def _free(held: InferRequest, asked: InferRequest) -> None:
    """Opens the windows of `held` whose readers wait for `asked` instead of reading. What is asked
    on behalf of such a window's request is waited for by reading it."""
    reading = _windows(asked)
    for window in _windows(held):
        if window not in reading and not window.readers.isdisjoint(asked.waiting):
            window.open()


def _windows(request: InferRequest) -> list[Window]:
    """Those that hold it up and are read by somebody who may wait."""
    own = () if request.window is None else (request.window,)
    return [window for window in chain(request.outer_windows, own) if window.readers]


class _Leaving:
    """The sink of an open request."""

    __slots__ = ("_holding", "_request", "_sink")

    def __init__(self, holding: Holding, request: InferRequest, sink: Sink) -> None:
        self._holding = holding
        self._request = request
        self._sink = sink

    def send(self, response: InferResponse, *, final: bool) -> None:
        if final:
            self._holding.leave(self._request)
        self._sink.send(response, final=final)

    def finish(self) -> None:
        self._holding.leave(self._request)
        self._sink.finish()

    def fail(self, error: ServingError) -> None:
        self._holding.leave(self._request)
        self._sink.fail(error)
