"""A request's way into the engine: its adapter gets a slot, its images are looked at, its grammar
is compiled."""

from collections.abc import Callable
from dataclasses import replace

from trivet.backends.api import InvalidRequest, ServingError
from trivet.backends.llm.engine.adapting import AdapterDesk, MakeAdapters, ReadAdapter
from trivet.backends.llm.engine.image_desk import ImageDesk, Prepared
from trivet.backends.llm.messages import LoadAdapter, Submit, UnloadAdapter
from trivet.backends.llm.sampling.grammar_compiling import (
    Compiled,
    GrammarCompiler,
    Grammars,
    LearningConstraint,
)

Add = Callable[[Submit, LearningConstraint | None], None]
Refuse = Callable[[str, ServingError], None]
Note = Compiled | LoadAdapter | UnloadAdapter | ReadAdapter | Prepared


class Intake:
    """Owned by the engine's thread."""

    def __init__(
        self,
        grammars: Grammars,
        make_adapters: MakeAdapters,
        put: Callable[[Compiled | ReadAdapter | Prepared], None],
        add: Add,
        refuse: Refuse,
        images: ImageDesk | None = None,
    ) -> None:
        """`put`: into the inbox; `add` takes a request that is ready, `refuse` one that never
        is. `images`: of a model that reads them."""
        self._add = add
        self._refuse = refuse
        self._compiler = GrammarCompiler(grammars, put)
        self._compiling: set[str] = set()
        """Requests whose grammars are not there yet."""
        self.adapters: AdapterDesk = make_adapters(put)
        self._images = images
        if images is not None:
            images.open(put)

    @property
    def has_work(self) -> bool:
        """Whether `look` has something to do."""
        return self._images is not None and self._images.has_work

    @property
    def num_waiting(self) -> int:
        """Requests that wait for an adapter, or for their images to be looked at."""
        return self.adapters.num_waiting + (self._images.num_waiting if self._images else 0)

    def receive(self, submit: Submit) -> None:
        """A request has come."""
        try:
            is_in = not submit.adapter or self.adapters.admit(submit)
        except ServingError as error:
            self._refuse(submit.id, error)
            return
        if is_in:
            self._enter(submit)

    def look(self) -> None:
        """At a part of an image; then those whose images have all been seen go on."""
        assert self._images is not None, "called where there is such work"
        for seen in self._images.step():
            if seen.error is None:
                self._compile(seen.submit)
            else:
                self._refuse(seen.submit.id, seen.error)

    def give_up(self, error: ServingError) -> None:
        """The image that `look` was at cannot be looked at."""
        assert self._images is not None, "called after `look`"
        self._images.give_up(error)

    def scheduled(self, submit: Submit) -> Submit:
        """A request as the scheduler is to know it."""
        if self._images is None or not submit.images:
            return submit
        return replace(submit, prompt_ids=self._images.ids_of(submit))

    def note(self, message: Note) -> None:
        """What else concerns requests on their way."""
        if isinstance(message, Compiled):
            self._note_compiled(message)
            return
        if isinstance(message, Prepared):
            assert self._images is not None, "nobody else prepares images"
            self._images.came(message)
            return
        failed: list[tuple[Submit, ServingError]] = []
        if isinstance(message, LoadAdapter):
            self.adapters.load(message)
        elif isinstance(message, UnloadAdapter):
            failed = self.adapters.unload(message.key)
        else:
            failed = self.adapters.take(message)
        for submit, error in failed:
            self._refuse(submit.id, error)
        self._let_in()

    def abort(self, request_id: str) -> None:
        """Nobody waits any more for a request that is on its way."""
        self.adapters.abort(request_id)
        self._compiling.discard(request_id)
        self.end(request_id)

    def end(self, request_id: str) -> None:
        """A request has ended, or was refused."""
        if self._images is not None:
            self._images.release(request_id)
        if self.adapters.end(request_id):
            self._let_in()

    def close(self) -> None:
        """Ends what runs beside the engine."""
        self._compiler.close()
        self.adapters.close()
        if self._images is not None:
            self._images.close()

    def _let_in(self) -> None:
        for submit in self.adapters.let_in():
            self._enter(submit)

    def _enter(self, submit: Submit) -> None:
        if not submit.images:
            self._compile(submit)
        elif self._images is None:
            self._refuse(submit.id, InvalidRequest("messages: the model reads no images"))
        else:
            self._images.take(submit)

    def _compile(self, submit: Submit) -> None:
        if submit.sampling.grammar is None:
            self._add(submit, None)
        else:
            self._compiling.add(submit.id)
            self._compiler.compile(submit)

    def _note_compiled(self, compiled: Compiled) -> None:
        submit_id = compiled.submit.id
        if submit_id not in self._compiling:  # aborted meanwhile
            return
        self._compiling.remove(submit_id)
        if compiled.error is None:
            self._add(compiled.submit, compiled.constraint)
        else:
            self._refuse(submit_id, compiled.error)
