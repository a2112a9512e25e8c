"""A request on the server's side: tokens of the engine to chunks of text for its sink."""

import asyncio
from collections.abc import Callable, Sequence

from trivet.backends.api import (
    BackendFailed,
    Cancelled,
    Chunk,
    DeadlineExceeded,
    Finish,
    GenerateRequest,
    GenerateSink,
    InvalidRequest,
    QueueFull,
    ServingError,
    TokenLogprob,
    Unavailable,
)
from trivet.backends.llm.messages import Output, TopLogprobs
from trivet.backends.llm.text.detokenizer import Detokenizer, StopMatcher
from trivet.backends.llm.text.tokenizer import Tokenizer


class Running:
    """One request that the engine has. Ends exactly once."""

    def __init__(
        self,
        request: GenerateRequest,
        sink: GenerateSink,
        tokenizer: Tokenizer,
        on_end: Callable[["Running"], None],
    ) -> None:
        self.id = request.id
        self.engine_has_it = True
        """Whether the engine must be told to stop when this ends."""
        self.num_preemptions = 0
        """How often the engine has set it back, so far."""
        self._request = request
        self._sink = sink
        self._tokenizer = tokenizer
        self._on_end = on_end
        sampling = request.sampling
        self._decoder = tokenizer.within_text
        self._detokenizer = Detokenizer(
            self._decoder, skip_special_tokens=sampling.skip_special_tokens
        )
        self._stops = StopMatcher(sampling.stop, include=sampling.include_stop)
        self._num_tokens = 0
        self._is_ended = False
        self._timer: asyncio.TimerHandle | None = None
        request.cancel.on_cancel(self._cancelled)
        if request.deadline is not None and not self._is_ended:
            loop = asyncio.get_running_loop()
            # Both clocks are time.monotonic.
            self._timer = loop.call_at(request.deadline, self._expired)

    def on_output(self, output: Output) -> None:
        """What a step gave."""
        if self._is_ended:
            return
        if output.finish:
            self.engine_has_it = False
        if output.finish == "error":
            self.fail(_error(output))
            return
        scored = output.prompt_logprobs
        prompt_logprobs = None
        if scored is not None:
            first_id = self._request.prompt_ids[0]
            first = TokenLogprob(first_id, self._text(first_id), None)
            prompt_logprobs = (first, *self._logprobs(scored))
        if self._request.sampling.max_tokens == 0:
            self._end(Chunk("", finish=Finish("length"), prompt_logprobs=prompt_logprobs))
            return
        text, finish = self._advance(output)
        chunk = Chunk(
            text,
            tuple(output.token_ids),
            self._logprobs(output.logprobs or ()),
            finish,
            prompt_logprobs,
            output.num_cached,
            output.queue_s,
            self.num_preemptions if finish is not None else 0,
        )
        if finish is not None:
            self._end(chunk)
        else:
            self._sink.chunk(chunk)

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""
        if not self._is_ended:
            self._settle()
            self._sink.fail(error)

    def _advance(self, output: Output) -> tuple[str, Finish | None]:
        token = output.token_ids[-1]
        sampling = self._request.sampling
        is_end = output.finish == "stop"
        # An end token is not part of the text; a stop token is where it was asked for.
        shown = output.token_ids[:-1] if is_end and not sampling.include_stop else output.token_ids
        # Like end tokens, which the engine holds off (vLLM's rule).
        self._num_tokens += len(output.token_ids)
        is_early = self._num_tokens <= sampling.min_tokens
        text, hit = self._stops.push(self._detokenizer.push(shown), is_barred=is_early)
        if hit is not None:
            return text, Finish("stop", hit.stop)
        if not output.finish:
            return text, None
        rest, hit = self._stops.push(self._detokenizer.flush(), is_barred=is_early)
        if hit is not None:
            return text + rest, Finish("stop", hit.stop)
        text += rest + self._stops.flush()
        if not is_end:
            return text, Finish("length")
        return text, Finish("stop", token if token in sampling.stop_token_ids else None)

    def _logprobs(self, found: Sequence[TopLogprobs]) -> tuple[TokenLogprob, ...]:
        return tuple(
            TokenLogprob(
                token,
                self._text(token),
                logprob,
                tuple(
                    (other, self._text(other), value)
                    for other, value in zip(top_ids, top, strict=True)
                ),
                self._tokenizer.is_special(token),
                rank,
            )
            for token, logprob, rank, top_ids, top in found
        )

    def _text(self, token: int) -> str:
        return self._decoder.decode([token], skip_special_tokens=False)

    def _end(self, chunk: Chunk) -> None:
        self._settle()
        self._sink.chunk(chunk)

    def _settle(self) -> None:
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._on_end(self)

    def _cancelled(self) -> None:
        self.fail(Cancelled("the request was cancelled"))

    def _expired(self) -> None:
        self.fail(DeadlineExceeded("the request's deadline has passed"))


def _error(output: Output) -> ServingError:
    return ERRORS.get(output.error_kind, BackendFailed)(output.error)


ERRORS: dict[str, type[ServingError]] = {
    kind.__name__: kind for kind in (InvalidRequest, QueueFull, Unavailable, BackendFailed)
}
"""The classes that an engine's error may have here."""
