"""Marks that say which rows of docs/bad-input.md a test shows, taken from the test's own table."""

from collections.abc import Iterable
from typing import Any

import pytest

FIELD_ROWS = {
    "model": ("O03",),
    "messages": ("O05", "O06", "O07"),
    "temperature": ("O08",),
    "top_p": ("O09",),
    "top_k": ("O09",),
    "min_p": ("O09",),
    "presence_penalty": ("O09",),
    "frequency_penalty": ("O09",),
    "repetition_penalty": ("O09",),
    "n": ("O10",),
    "max_tokens": ("O11",),
    "max_completion_tokens": ("O11",),
    "stop": ("O12",),
    "logit_bias": ("O13",),
    "top_logprobs": ("O14",),
    "logprobs": ("O14",),
    "seed": ("O15",),
    "stream": ("O16",),
    "stream_options": ("O16",),
    "response_format": ("O17",),
    "structured_outputs": ("O19",),
    "chat_template": ("O23",),
    "chat_template_kwargs": ("O24",),
    "prompt": ("O07", "O29", "O30", "O31"),
    "prompt_embeds": ("O32",),
    "best_of": ("O33",),
    "use_beam_search": ("O33",),
    "suffix": ("O34",),
    "audio": ("O34",),
}
"""What a wrong value of a field of the OpenAI API belongs to."""


def rows_of(table: Iterable[object]) -> pytest.MarkDecorator:
    """Of a table whose entries show as "H03 -1": row, then what is special."""
    names = {str(entry).partition(" ")[0] for entry in table}
    return pytest.mark.rows(*sorted(name for name in names if _is_row(name)))


def rows_of_fields(*tables: Iterable[tuple[str, Any, str]]) -> pytest.MarkDecorator:
    """Of tables whose entries begin with the name of a wrong field."""
    fields = {entry[0] for table in tables for entry in table}
    return pytest.mark.rows(*sorted({row for f in fields for row in FIELD_ROWS.get(f, ())}))


def _is_row(name: str) -> bool:
    return len(name) == 3 and name[0] in "HVRGO" and name[1:].isdigit()
