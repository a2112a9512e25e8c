"""One request on its way: submitted, timed, and written as TGI writes it."""

import time
from collections.abc import Sequence
from typing import Any

from trivet.backends.api import (
    Choices,
    Chunk,
    GenerateRequest,
    Generator,
    InvalidRequest,
    TokenLogprob,
)
from trivet.server.http.generation import Outputs
from trivet.server.http.openai.events import event
from trivet.server.http.tgi import documents as docs
from trivet.server.http.tgi.fields import Parameters


class Generation:
    """A prompt and its outputs."""

    def __init__(
        self, request_id: str, inputs: str, parameters: Parameters, generator: Generator
    ) -> None:
        self._id = request_id
        self._inputs = inputs
        self._parameters = parameters
        self._generator = generator
        self._started_s = time.monotonic()
        self._validation_s = 0.0
        self._num_prompt = 0
        self._collected: list[docs.Output] = []
        self.outputs = Outputs()

    async def start(self, *, scored: bool) -> None:
        """Tokenises and submits. Raises InvalidRequest."""
        parameters = self._parameters
        prompt = await self._generator.compose(self._inputs)
        ids = await self._generator.encode(prompt, add_special_tokens=True)
        ids = self._fitting(ids)
        self._num_prompt = len(ids)
        self._validation_s = time.monotonic() - self._started_s
        scored = scored or parameters.num_outputs > 1
        choices = Choices(parameters.num_outputs)
        for _ in range(parameters.num_outputs):
            seed = parameters.new_seed()
            sampling = parameters.sampling(seed, scored=scored)
            self._collected.append(docs.Output(seed))
            request = GenerateRequest(self._id, ids, sampling, choices=choices)
            self.outputs.start(self._generator, request)

    def _fitting(self, ids: list[int]) -> list[int]:
        """The end of the prompt that `truncate` leaves. Raises InvalidRequest."""
        limit, total = self._parameters.truncate, self._generator.info.max_model_len
        if limit is not None:
            if limit >= total:
                raise InvalidRequest(
                    f"truncate: it must be strictly positive and less than {total}. Given: {limit}"
                )
            ids = ids[-limit:]
        num_new = self._parameters.max_new_tokens or 1
        if len(ids) + num_new > total:
            raise InvalidRequest(
                f"inputs: tokens of inputs + max_new_tokens must be <= {total}. Given: {len(ids)} "
                f"tokens of inputs and {num_new} max_new_tokens"
            )
        return ids

    # -- whole answers -------------------------------------------------------------------------

    def document(self, chunks: Sequence[tuple[int, Chunk]]) -> dict[str, Any]:
        """The whole answer."""
        for index, chunk in chunks:
            self._collected[index].add(chunk)
        best = max(self._collected, key=lambda output: output.mean_logprob)
        self._collected.remove(best)
        self._collected.insert(0, best)
        document: dict[str, Any] = {"generated_text": self._full_text(best)}
        if self._parameters.details or self._parameters.decoder_input_details:
            document["details"] = docs.details(best, self._special_ids)
            if self._parameters.num_outputs > 1:
                document["details"]["best_of_sequences"] = [
                    {"generated_text": self._full_text(each), **self._details(each)}
                    for each in self._collected[1:]
                ]
        return document

    def headers(self) -> dict[str, str]:
        """What TGI tells of the time that it took, when all is done; times in milliseconds."""
        best = self._collected[0]
        total_s = time.monotonic() - self._started_s
        inference_s = max(total_s - self._validation_s - best.queue_s, 0.0)
        return {
            **self.first_headers(),
            "x-compute-time": f"{total_s:.6f}",
            "x-total-time": _milliseconds(total_s),
            "x-validation-time": _milliseconds(self._validation_s),
            "x-queue-time": _milliseconds(best.queue_s),
            "x-inference-time": _milliseconds(inference_s),
            "x-time-per-token": _milliseconds(inference_s / max(best.num_tokens, 1)),
            "x-prompt-tokens": str(self._num_prompt),
            "x-generated-tokens": str(best.num_tokens),
        }

    def first_headers(self) -> dict[str, str]:
        """What can be told before the first token."""
        return {
            "x-compute-type": self._generator.info.device,
            "x-compute-characters": str(len(self._inputs)),
        }

    def _details(self, output: docs.Output) -> dict[str, Any]:
        return docs.details(output, self._special_ids)

    # -- streams -------------------------------------------------------------------------------

    def write(self, chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        """The events of some chunks: one for each token."""
        return b"".join(event(each) for _, chunk in chunks for each in self._events(chunk))

    def _events(self, chunk: Chunk) -> list[dict[str, Any]]:
        output = self._collected[0]
        first = output.num_tokens + 1
        output.add(chunk)
        scored = chunk.logprobs
        events = [
            self._event(first + index, each, chunk.text if index == len(scored) - 1 else "")
            for index, each in enumerate(scored)
        ]
        if chunk.finish is not None and events:
            events[-1] |= {"generated_text": self._full_text(output), "details": self._end(output)}
        return events

    def _event(self, index: int, scored: TokenLogprob, text: str) -> dict[str, Any]:
        token = docs.token(scored)
        # Text comes when it is certain, maybe after its token. The concatenated texts of tokens
        # that are not special are the output; so one that brings text late is not called special.
        token["special"] = scored.is_special and not text
        if not token["special"]:
            token["text"] = text
        return {
            "index": index,
            "token": token,
            "top_tokens": docs.top_tokens(scored, self._special_ids),
            "generated_text": None,
            "details": None,
        }

    def _end(self, output: docs.Output) -> dict[str, Any]:
        return {
            "finish_reason": docs.finish_reason(output.finish),
            "generated_tokens": output.num_tokens,
            "seed": output.seed,
            "input_length": self._num_prompt,
        }

    # ------------------------------------------------------------------------------------------

    def _full_text(self, output: docs.Output) -> str:
        return self._inputs + output.text if self._parameters.return_full_text else output.text

    @property
    def _special_ids(self) -> tuple[int, ...]:
        return self._generator.info.eos_token_ids


def _milliseconds(duration_s: float) -> str:
    return str(round(duration_s * 1000))
