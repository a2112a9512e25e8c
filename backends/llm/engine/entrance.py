"""Requests on their way to the scheduler: those with images are looked at, those with grammars wait
until these are compiled, the others pass."""

from collections.abc import Callable
from dataclasses import dataclass

from trivet.backends.api import InvalidRequest, ServingError
from trivet.backends.llm.engine.image_desk import ImageDesk, Prepared, Seen
from trivet.backends.llm.messages import Submit
from trivet.backends.llm.sampling.grammar_compiling import (
    Compiled,
    GrammarCompiler,
    Grammars,
    LearningConstraint,
)


@dataclass(frozen=True, slots=True)
class Entrant:
    """A request that may be scheduled, or why it cannot be."""

    submit: Submit
    constraint: LearningConstraint | None = None
    error: ServingError | None = None


class Entrance:
    """Owned by the engine's thread."""

    def __init__(
        self,
        grammars: Grammars,
        put: Callable[[Compiled | Prepared], None],
        desk: ImageDesk | None,
    ) -> None:
        """`put` is called in other threads; what it is given goes to `came`. `desk`: of a model
        that reads images."""
        self._compiler = GrammarCompiler(grammars, put)
        self._compiling: set[str] = set()
        self._desk = desk
        if desk is not None:
            desk.open(put)

    @property
    def has_work(self) -> bool:
        """Whether `look` has something to do."""
        return self._desk is not None and self._desk.has_work

    @property
    def num_waiting(self) -> int:
        """Requests whose images have not been looked at."""
        return 0 if self._desk is None else self._desk.num_waiting

    def take(self, submit: Submit) -> Entrant | None:
        """A new request; None while something of it is not there."""
        if not submit.images:
            return self._compiled_later(submit)
        if self._desk is None:
            return Entrant(submit, error=InvalidRequest("messages: the model reads no images"))
        self._desk.take(submit)
        return None

    def came(self, found: Compiled | Prepared) -> Entrant | None:
        """What another thread has made."""
        if isinstance(found, Prepared):
            assert self._desk is not None, "nobody else prepares images"
            self._desk.came(found)
            return None
        if found.submit.id not in self._compiling:  # aborted meanwhile
            return None
        self._compiling.remove(found.submit.id)
        return Entrant(found.submit, found.constraint, found.error)

    def look(self) -> list[Entrant]:
        """Looks at a part of an image; tells who may enter."""
        assert self._desk is not None, "called where there is such work"
        entrants = [self._seen(each) for each in self._desk.step()]
        return [each for each in entrants if each is not None]

    def give_up(self, error: ServingError) -> None:
        """The image that `look` was at cannot be looked at."""
        assert self._desk is not None, "called after `look`"
        self._desk.give_up(error)

    def ids_of(self, submit: Submit) -> list[int]:
        """A prompt as the scheduler is to know it."""
        if self._desk is None or not submit.images:
            return submit.prompt_ids
        return self._desk.ids_of(submit)

    def leave(self, request_id: str) -> None:
        """A request has ended, wherever it was."""
        self._compiling.discard(request_id)
        if self._desk is not None:
            self._desk.release(request_id)

    def close(self) -> None:
        """Nobody waits any more."""
        self._compiler.close()
        if self._desk is not None:
            self._desk.close()

    def _seen(self, seen: Seen) -> Entrant | None:
        if seen.error is not None:
            return Entrant(seen.submit, error=seen.error)
        return self._compiled_later(seen.submit)

    def _compiled_later(self, submit: Submit) -> Entrant | None:
        if submit.sampling.grammar is None:
            return Entrant(submit)
        self._compiling.add(submit.id)
        self._compiler.compile(submit)
        return None
