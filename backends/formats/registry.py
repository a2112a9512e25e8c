"""All formats: by name, and by what a model's chat template says."""

import difflib
from collections.abc import Sequence

from trivet.backends.formats import thoughts
from trivet.backends.formats.cohere import COHERE, COMMAND_R
from trivet.backends.formats.format import ThoughtFormat, ToolFormat
from trivet.backends.formats.gemma import FUNCTION_GEMMA, GEMMA4
from trivet.backends.formats.harmony import HARMONY, THOUGHT_MARKS
from trivet.backends.formats.marked_json import (
    GRANITE,
    GRANITE_CODE,
    HERMES,
    INTERNLM,
    JAMBA,
    LLAMA3_JSON,
    LONGCAT,
    PHI4_MINI,
)
from trivet.backends.formats.markup import (
    DEEPSEEK_V32,
    GLM45,
    MINIMAX_M2,
    QWEN3_CODER,
    SEED_OSS,
)
from trivet.backends.formats.named_json import DEEPSEEK_V3, DEEPSEEK_V31, KIMI_K2, MISTRAL
from trivet.backends.formats.pythonic import LFM2, LLAMA4_PYTHONIC, OLMO3, PYTHONIC, TOOL_CODE

TOOL_FORMATS: Sequence[ToolFormat] = (
    HARMONY,
    DEEPSEEK_V32,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    KIMI_K2,
    GLM45,
    MINIMAX_M2,
    SEED_OSS,
    QWEN3_CODER,
    GEMMA4,
    FUNCTION_GEMMA,
    LFM2,
    OLMO3,
    LLAMA4_PYTHONIC,
    PYTHONIC,
    TOOL_CODE,
    COHERE,
    COMMAND_R,
    GRANITE,
    GRANITE_CODE,
    PHI4_MINI,
    JAMBA,
    LONGCAT,
    INTERNLM,
    HERMES,
    MISTRAL,
    LLAMA3_JSON,
)
"""A template is of the first that knows it."""
THOUGHT_FORMATS: Sequence[ThoughtFormat] = (
    thoughts.SEED_OSS,
    thoughts.GEMMA4,
    thoughts.MISTRAL,
    thoughts.THINK,
    thoughts.COHERE,
    thoughts.GRANITE,
)
HARMONY_THOUGHTS = "openai_gptoss"
"""vLLM's name for what reads thoughts of the format that has all."""
NO_THOUGHTS = "none"
_TOOLS = {name: each for each in TOOL_FORMATS for name in (each.name, *each.aliases)}
_THOUGHTS = {name: each for each in THOUGHT_FORMATS for name in (each.name, *each.aliases)}
TOOL_NAMES = tuple(_TOOLS)
THOUGHT_NAMES = (*_THOUGHTS, HARMONY_THOUGHTS, NO_THOUGHTS)


def tool_format(name: str) -> ToolFormat | None:
    """By name; None for one that nobody knows."""
    return _TOOLS.get(name)


def thought_format(name: str) -> ThoughtFormat | None:
    """By name; None where thoughts are not told apart, or by the format of calls."""
    return _THOUGHTS.get(name)


def thought_marks(name: str) -> tuple[str, str] | None:
    """What stands before and behind thoughts; None where that is not known."""
    if name == HARMONY_THOUGHTS:
        return THOUGHT_MARKS
    form = _THOUGHTS.get(name)
    return None if form is None else (form.opening, form.closing)


def tool_format_of(template: str) -> str:
    """The name of the format that a chat template with tools tells of; empty: none."""
    return next((each.name for each in TOOL_FORMATS if each.is_of(template)), "")


def thought_format_of(template: str) -> str:
    """The same of thoughts."""
    if HARMONY.is_of(template):
        return HARMONY_THOUGHTS
    return next((each.name for each in THOUGHT_FORMATS if each.is_of(template)), "")


def nearest(name: str, names: Sequence[str]) -> str:
    """The name that was meant, perhaps; empty: none is like it."""
    return next(iter(difflib.get_close_matches(name, names, 1)), "")
