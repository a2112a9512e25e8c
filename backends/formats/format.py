"""What a format is: how it is recognised, read and forced, and what it is called."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trivet.backends.formats.grammar import Forcing
from trivet.backends.formats.reader import OutputReader, Tools

Marks = Sequence[str]


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a model writes calls of tools."""

    name: str
    """vLLM's name of its parser."""
    shown: str
    """A call as it is written, for documents."""
    used_by: str
    """Models that write so, for documents."""
    reader: Callable[[Tools], OutputReader]
    force: Callable[[Forcing], str | None]
    """The rule of an output that is calls and nothing else; None: it cannot be written as one."""
    in_template: tuple[Marks, ...] = ()
    """A chat template is one of this format if it has all texts of one of these."""
    aliases: tuple[str, ...] = ()
    """Other names that vLLM has for it."""
    ends: Marks = ()
    """Tokens that end an output, whether or not the model's files say so."""
    short_ids: bool = False
    """Whether its templates take ids of nine letters and digits only."""
    is_whole: bool = False
    """Whether it says of the whole output what it is, thoughts too, calls or not."""

    def is_of(self, template: str) -> bool:
        """Whether a chat template tells the model to write so."""
        return any(all(text in template for text in texts) for texts in self.in_template)


@dataclass(frozen=True, slots=True)
class ThoughtFormat:
    """What a model thinks before it answers stands between two marks."""

    name: str
    """vLLM's name of its parser, of the best known model."""
    opening: str
    closing: str
    in_template: tuple[Marks, ...]
    aliases: tuple[str, ...] = ()
    is_special: bool = False
    """Whether the marks are special tokens, which are skipped otherwise."""

    def is_of(self, template: str) -> bool:
        """Whether a chat template knows these marks."""
        return any(all(text in template for text in texts) for texts in self.in_template)

    def is_open(self, prompt: str) -> bool:
        """Whether a prompt ends within thoughts."""
        return prompt.rstrip().endswith(self.opening.rstrip())
