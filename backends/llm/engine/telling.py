"""Tells what comes of steps: a token to each request, or its end."""

from collections.abc import Callable

from trivet.backends.llm.engine.generation import Generation, output_of
from trivet.backends.llm.engine.outbox import Outbox
from trivet.backends.llm.messages import Output
from trivet.backends.llm.sampling.sampler import Logprobs
from trivet.backends.llm.scheduling.sequence import Sequence, SequenceStatus


class Teller:
    """Owned by the engine's thread."""

    def __init__(self, outbox: Outbox, end: Callable[[Sequence, Output], None]) -> None:
        """`end`: called with the last output of a request."""
        self._outbox = outbox
        self._end = end

    def tell_all(
        self,
        generations: list[Generation | None],
        tokens: list[int],
        logprobs: dict[int, Logprobs],
    ) -> None:
        """A token for each that there is, and log probabilities by place."""
        running, tell = SequenceStatus.RUNNING, self._outbox.tokens.append
        for index, (generation, token) in enumerate(zip(generations, tokens, strict=True)):
            if generation is None:
                continue
            row = generation.row
            is_plain = row.output_ids and not logprobs and row.constraint is None
            if is_plain and token not in row.end_ids and generation.sequence.status is running:
                # Most rows of most steps; with hundreds of them the calls are what a step costs.
                row.output_ids.append(token)
                tell((generation.sequence.id, token))
            else:
                self._tell(generation, token, logprobs.get(index))

    def _tell(self, generation: Generation, token: int, logprobs: Logprobs | None) -> None:
        row = generation.row
        is_first = not row.output_ids
        row.output_ids.append(token)
        is_last = generation.sequence.status is SequenceStatus.FINISHED
        output = output_of(generation, token, logprobs, is_last=is_last, first=is_first)
        if row.constraint is not None and not output.finish:
            row.constraint.accept(token)  # type: ignore[attr-defined]
        if output.finish:
            self._end(generation.sequence, output)
        else:
            self._outbox.outputs.append(output)
