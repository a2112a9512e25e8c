"""Outputs and tokens as TGI writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trivet.backends.api import Chunk, Finish, TokenLogprob

Document = dict[str, Any]


@dataclass(slots=True)
class Output:
    """One output, put together."""

    seed: int | None
    texts: list[str] = field(default_factory=list)
    tokens: list[TokenLogprob] = field(default_factory=list)
    prefill: Sequence[TokenLogprob] = ()
    num_tokens: int = 0
    queue_s: float = 0.0
    finish: Finish | None = None

    def add(self, chunk: Chunk) -> None:
        """The next piece."""
        self.texts.append(chunk.text)
        self.tokens += chunk.logprobs
        self.num_tokens += len(chunk.token_ids)
        self.queue_s += chunk.queue_s
        self.prefill = chunk.prompt_logprobs or self.prefill
        self.finish = chunk.finish

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)

    @property
    def mean_logprob(self) -> float:
        """By which the best of several outputs is chosen."""
        scores = [token.logprob for token in self.tokens if token.logprob is not None]
        return sum(scores) / len(scores) if scores else float("-inf")


def finish_reason(finish: Finish | None) -> str:
    """length, eos_token or stop_sequence."""
    if finish is None or finish.reason == "length":
        return "length"
    return "eos_token" if finish.stop is None else "stop_sequence"


def token(scored: TokenLogprob) -> Document:
    """A generated token."""
    return {**prefill_token(scored), "special": scored.is_special}


def prefill_token(scored: TokenLogprob) -> Document:
    """A token of the prompt; the first one's logprob is null."""
    return {"id": scored.token_id, "text": scored.text, "logprob": scored.logprob}


def top_tokens(scored: TokenLogprob, special_ids: Sequence[int]) -> list[Document]:
    """The likeliest tokens at a token's place, best first."""
    return [
        {"id": other, "text": text, "logprob": logprob, "special": other in special_ids}
        for other, text, logprob in scored.top
    ]


def details(output: Output, special_ids: Sequence[int]) -> Document:
    """What is told of an output beside its text."""
    return {
        "finish_reason": finish_reason(output.finish),
        "generated_tokens": output.num_tokens,
        "seed": output.seed,
        "prefill": [prefill_token(each) for each in output.prefill],
        "tokens": [token(each) for each in output.tokens],
        "top_tokens": [top_tokens(each, special_ids) for each in output.tokens if each.top],
    }
