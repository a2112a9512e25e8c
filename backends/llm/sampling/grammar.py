"""Structured output: each request's grammar, tried in a process and then compiled here."""

from collections import OrderedDict

from trivet.backends.api import Grammar, Unsupported
from trivet.backends.llm.messages import Submit
from trivet.backends.llm.sampling.grammar_library import GrammarConstraint, GrammarLibrary
from trivet.backends.llm.sampling.grammar_trial import GrammarTrial

MAX_TRIED = 256
"""Grammars that are remembered, so that they are tried only once."""


class NoGrammars:
    """For engines whose tokenizer is not known to the grammar library."""

    def constraint(self, submit: Submit) -> None:
        """None, or Unsupported when the request has a grammar."""
        if submit.sampling.grammar is not None:
            raise Unsupported(
                "structured_outputs: not offered here; install trivet with its llm extra"
            )

    def close(self) -> None:
        """Holds nothing."""


class Grammars:
    """Constraints for one tokenizer's vocabulary. Owned by the thread that compiles."""

    def __init__(self, tokenizer_json: str, eos_token_id: int, vocabulary_size: int) -> None:
        self._library = GrammarLibrary(tokenizer_json, eos_token_id, vocabulary_size)
        self._trial = GrammarTrial(tokenizer_json, eos_token_id, vocabulary_size)
        self._tried: OrderedDict[Grammar, None] = OrderedDict()

    def constraint(self, submit: Submit) -> GrammarConstraint | None:
        """A request's constraint. Raises InvalidRequest when its grammar is wrong or too large."""
        grammar = submit.sampling.grammar
        if grammar is None:
            return None
        if grammar not in self._tried:
            self._trial.check(grammar)
            self._tried[grammar] = None
            if len(self._tried) > MAX_TRIED:
                self._tried.popitem(last=False)
        return self._library.constraint(grammar)

    def close(self) -> None:
        """Ends its process."""
        self._trial.close()
