"""How long one sequence can be: by the model's context and by the size of the cache."""

from dataclasses import dataclass

from trivet.backends.api.errors import InvalidRequest
from trivet.backends.llm.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class SequenceLimits:
    """`num_blocks` of `block_size` tokens are there for all sequences together."""

    max_model_len: int
    num_blocks: int
    block_size: int

    @property
    def max_tokens(self) -> int:
        """Most tokens, prompt and output, of one sequence.

        The last token's keys and values are never needed, hence one more than the cache holds.
        """
        return min(self.max_model_len, self.num_blocks * self.block_size + 1)

    def check(self, sequence: Sequence) -> None:
        """Raise `InvalidRequest` if the sequence could never run, even alone."""
        if not sequence.prompt_ids:
            raise InvalidRequest("the prompt is empty; give at least 1 token")
        if sequence.max_new_tokens < 1:
            raise InvalidRequest(
                f"max_new_tokens must be at least 1; got {sequence.max_new_tokens}"
            )
        self._check_context(sequence.num_prompt)
        self._check_cache(sequence.num_prompt)

    def _check_context(self, num_prompt: int) -> None:
        if num_prompt >= self.max_model_len:
            raise InvalidRequest(
                f"prompt of {num_prompt} tokens leaves no room for output: prompt and output "
                f"together are limited to {self.max_model_len} tokens (max_model_len); "
                f"shorten the prompt"
            )

    def _check_cache(self, num_prompt: int) -> None:
        num_needed = -(-num_prompt // self.block_size)
        if num_needed > self.num_blocks:
            raise InvalidRequest(
                f"prompt of {num_prompt} tokens needs {num_needed} cache blocks of "
                f"{self.block_size} tokens, the limit is {self.num_blocks} (the size of the "
                f"key/value cache); shorten the prompt or give the model a larger cache"
            )
