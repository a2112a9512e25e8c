"""The shadows of all models: who mirrors to whom, and what came of it. Owned by the event loop."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from trivet.backends.api import Generator, InferRequest, InferResponse, ServingError, Sink
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.routing import Watch
from trivet.server.models.traffic import Traffic
from trivet.server.shadows.copies import copied
from trivet.server.shadows.generating import MirroredGenerator
from trivet.server.shadows.kept import KeptDifferences
from trivet.server.shadows.mirror import Mirror, Verdict, compare_threads

Counts = Counter[Verdict]


class Shadows:
    """By the models' keys and versions."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        """`folder`: where differences are kept."""
        self._registry = registry
        self._kept = KeptDifferences(folder)
        self._thread = compare_threads()
        self._mirrors: dict[tuple[str, int], Mirror] = {}
        """By the version that answers."""
        self._counts: dict[tuple[str, int], Counts] = {}
        """By the version that is asked beside."""

    def mirror(
        self, primary: Model, traffic: Traffic, note: Callable[[int, float], None]
    ) -> Mirror | None:
        """Who copies a version's requests; None: it has no shadow. `note` hears of the shadow with
        this version whether an answer differed."""
        self._forget_gone()
        key, setting = primary.key, traffic.shadow
        old = self._mirrors.pop((key, primary.version), None)
        version = None if setting is None else setting.version_in(traffic.labels)
        shadow = self._registry.models.get(key, {}).get(version or 0)
        if setting is None or shadow is None or shadow.version == primary.version:
            if old is not None:
                old.close()
            return None
        if old is None or not old.is_of(primary, shadow, setting):
            if old is not None:
                old.close()
            number = shadow.version
            old = Mirror(
                primary,
                shadow,
                setting,
                self._counts.setdefault((key, number), Counter()),
                kept=self._kept,
                thread=self._thread,
                note=lambda value: note(number, value),
            )
        self._mirrors[key, primary.version] = old
        return old

    def _forget_gone(self) -> None:
        """Versions that serve no more are not kept in memory."""
        serving = self._registry.models
        gone = [each for each in self._mirrors if each[1] not in serving.get(each[0], {})]
        for each in gone:
            self._mirrors.pop(each).close()

    def counts(self) -> Iterator[tuple[str, int, Counts]]:
        """What became of the copies for each shadow."""
        for (key, version), counts in self._counts.items():
            yield key, version, counts

    def counts_of(self, key: str) -> dict[int, Counts]:
        """The same of one model."""
        return {version: counts for name, version, counts in self.counts() if name == key}

    def kept(self, key: str) -> list[bytes]:
        """The last differences of a model, as they were written down. Blocking."""
        return self._kept.read(key)

    def close(self) -> None:
        """Asks nothing more."""
        for mirror in self._mirrors.values():
            mirror.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


class Mirrored:
    """A Watch before another, or alone: hands what was asked and answered to a mirror."""

    __slots__ = ("_inner", "_mirror")

    def __init__(self, inner: Watch | None, mirror: Mirror) -> None:
        self._inner = inner
        self._mirror = mirror

    def observed(self, request: InferRequest, sink: Sink) -> Sink:
        """See Watch."""
        inner = sink if self._inner is None else self._inner.observed(request, sink)
        return _MirrorSink(self._mirror, request, inner)

    def generator(self, inner: Generator) -> Generator:
        """See Watch."""
        found = inner if self._inner is None else self._inner.generator(inner)
        return MirroredGenerator(found, self._mirror)

    def note(self, series: str, value: float) -> None:
        """See Watch."""
        if self._inner is not None:
            self._inner.note(series, value)


class _MirrorSink:
    """Lets answers pass, and then copies the only one."""

    __slots__ = ("_is_first", "_mirror", "_request", "_sink")

    def __init__(self, mirror: Mirror, request: InferRequest, sink: Sink) -> None:
        self._mirror = mirror
        self._request = request
        self._sink = sink
        self._is_first = True

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response."""
        # Whoever sends it may put other outputs in their place.
        outputs = tuple(response.outputs)
        self._sink.send(response, final=final)
        request = self._request
        if final and self._is_first and not request.sequence_id:
            tensors = (*request.inputs.values(), *outputs)
            size_bytes = sum(each.nbytes for each in tensors)
            self._mirror.offer(lambda: copied(request, outputs), size_bytes)
        self._is_first = False

    def finish(self) -> None:
        """The end without a further response."""
        self._sink.finish()

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._sink.fail(error)
