"""A tokenizer for what goes on another text: SentencePiece's puts a space before a text, and takes
it away again, which within a text would be one too many and one too few."""

import json
from typing import Any

from trivet.backends.llm.text.tokenizer_files import read_tokenizer

_PARTS = ("normalizer", "pre_tokenizer", "decoder")
_NESTED = ("normalizers", "pretokenizers", "decoders")
_NEVER = {"prepend_scheme": "never", "add_prefix_space": False}
"""What parts that may put a space in front say when they do not."""


def within_text(tokenizer: Any) -> Any:
    """One that puts no space in front of a text and takes none away; the same one where it does
    neither."""
    if not any(_has_space(_described(getattr(tokenizer, name))) for name in _PARTS):
        return tokenizer
    document = json.loads(tokenizer.to_str())
    for name in _PARTS:
        document[name] = _without_space(document[name])
    return read_tokenizer(json.dumps(document, ensure_ascii=False))


def _described(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())


def _has_space(part: Any) -> bool:
    return bool(_without_space(part) != part)


def _without_space(part: Any) -> Any:
    """A part in the form of tokenizer.json; None where nothing is left of it."""
    if not isinstance(part, dict) or part.get("type") == "Prepend":
        return None
    if part.get("type") == "Strip" and part.get("start"):
        part = part | {"start": 0}
    changed = part | {name: value for name, value in _NEVER.items() if name in part}
    for name in _NESTED:
        if name in part:
            changed[name] = [kept for each in part[name] if (kept := _without_space(each))]
    return changed
