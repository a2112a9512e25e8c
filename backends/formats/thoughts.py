"""Thoughts before an answer: their marks by model, and how they are told apart. Pure."""

from trivet.backends.formats.format import ThoughtFormat
from trivet.backends.formats.pieces import Pieces
from trivet.backends.formats.reader import OutputReader, Reader
from trivet.backends.formats.source import Reading

THINK = ThoughtFormat(
    "think",
    "<think>",
    "</think>",
    (("</think>",),),
    aliases=(
        "deepseek_r1", "deepseek_v3", "deepseek_v4", "ernie45", "glm45", "glm47", "holo2",
        "hunyuan_a13b", "kimi_k2", "mimo", "minimax_m2", "nemotron_v3", "olmo3", "qwen3", "step3",
        "step3p5",
    ),
)  # fmt: skip
MISTRAL = ThoughtFormat(
    "mistral", "[THINK]", "[/THINK]", (("[THINK]", "[/THINK]"),), is_special=True
)
SEED_OSS = ThoughtFormat("seed_oss", "<seed:think>", "</seed:think>", (("</seed:think>",),))
GEMMA4 = ThoughtFormat(
    "gemma4", "<|channel>thought\n", "<channel|>", (("<|channel>", "<channel|>"),), is_special=True
)
COHERE = ThoughtFormat(
    "cohere_command3",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    (("<|START_THINKING|>",),),
    aliases=("cohere_command4",),
    is_special=True,
)
GRANITE = ThoughtFormat(
    "granite",
    "Here is my thought process:",
    "Here is my response:",
    (("Here is my thought process:", "Here is my response:"),),
)


class ThoughtReader(Reader):
    """Thoughts go from their mark, if that is what an output begins with, to the other one."""

    def __init__(
        self, marks: ThoughtFormat, answer: OutputReader | None = None, *, is_thinking: bool
    ) -> None:
        """`answer`: what reads what follows; None: it is text. `is_thinking`: the prompt has ended
        with the first mark."""
        super().__init__({})
        self._marks = marks
        self._answer = answer
        self._is_thinking = is_thinking

    def flush(self) -> Pieces:
        """See OutputReader."""
        pieces = super().flush()
        if self._answer is not None:
            pieces += self._answer.flush()
        return pieces

    def read(self) -> Reading[None]:
        """See Reader."""
        source, marks = self.source, self._marks
        if not self._is_thinking:
            source.remember()
            yield from source.spaces()
            if not (yield from source.has(marks.opening)):
                self.show(source.taken)
                source.forget()
                return
            source.forget()
        yield from source.until((marks.closing,), self.think)

    def show(self, text: str) -> None:
        """It is of the answer."""
        if self._answer is None:
            self._pieces.add_text(text)
        else:
            self._pieces += self._answer.push(text)
