"""A tokenizer from GGUF metadata, in the form of tokenizer.json: byte pairs, or SentencePiece's.

Metadata say which tokens there are and of what type; the rest is what llama.cpp knows of each kind
and name. A key that would change tokens and is not read is refused.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.text.pre_tokenizers import pre_tokenizer
from trivet.backends.llm.text.sentence_pieces import (
    piece_model,
    pieces_as_text,
    spaces_as_pieces,
)
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, sampling_defaults, with_ends

_PREFIX = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # llama.cpp's types of tokens
_READ = frozenset({
    "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id",
    "eot_token_id", "eom_token_id", "unknown_token_id", "add_bos_token", "add_eos_token",
    "add_space_prefix",
})  # fmt: skip
_ARRAYS: dict[str, tuple[type, ...]] = {
    "tokens": (str,), "merges": (str,), "token_type": (int,), "scores": (int, float),
}  # fmt: skip
"""Of what; an array's elements all are of one type."""
_TEXTS = ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
_SAYS_NOTHING = frozenset({
    "padding_token_id", "seperator_token_id", "separator_token_id", "cls_token_id",
    "mask_token_id", "prefix_token_id", "suffix_token_id", "middle_token_id", "token_type_count",
    "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id",
    "fim_rep_token_id", "fim_sep_token_id",
})  # fmt: skip
"""Names of tokens that text is given nowhere by itself."""
_NEUTRAL: dict[str, Any] = {
    "add_sep_token": False, "remove_extra_whitespaces": False, "precompiled_charsmap": [],
    "suppress_tokens": [], "normalizer.lowercase": False, "normalizer.strip_accents": False,
}  # fmt: skip
"""Keys that nothing is done by, with the value that asks for nothing."""
_ENDS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<end_of_utterance>",
    "<EOT>",
)  # fmt: skip
"""Marks that end a turn, which llama.cpp knows by their texts: many files name one end only."""
_GOES_ON_BEHIND = {"<|end|>": {"<|return|>", "<|call|>"}}
"""An end that ends a message only where there are these: gpt-oss'."""
_SAMPLING = {
    "temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}  # fmt: skip
"""`general.sampling.` and what a generation_config.json calls it."""


def gguf_tokenizer(metadata: Described) -> TokenizerFiles:
    """Raises LoadFailed for a kind that is not known, and for what is not done."""
    _refuse_unread(metadata)
    _refuse_other_types(metadata)
    marks = _Marks.of(metadata)
    kind = metadata.get(f"{_PREFIX}model")
    if kind == "gpt2":
        document = _byte_pairs(metadata, marks)
    elif kind == "llama":
        document = _sentence_pieces(metadata, marks)
    else:
        raise LoadFailed(
            f"the GGUF file's tokenizer is of kind '{kind}' (tokenizer.ggml.model); 'gpt2' "
            "(byte-level BPE) and 'llama' (SentencePiece) are supported: use the Hugging Face "
            "folder of the model"
        )
    text = json.dumps(document, ensure_ascii=False)
    template = metadata.get("tokenizer.chat_template", "")
    special = {"eos_token": marks.text(marks.ends[0])}
    if marks.bos is not None:
        special["bos_token"] = marks.text(marks.bos)
    return TokenizerFiles(
        text,
        with_ends(marks.ends, text, template),
        special,
        template,
        sampling_defaults({
            name: metadata.get(f"general.sampling.{key}") for key, name in _SAMPLING.items()
        }),
        metadata.get("tokenizer.chat_template.tool_use", ""),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Marks:
    """The tokens, and those that have a part."""

    tokens: Sequence[str]
    types: Sequence[int]
    bos: int | None
    ends: tuple[int, ...]
    """The first is the end of texts."""

    @classmethod
    def of(cls, metadata: Described) -> "_Marks":
        tokens = metadata[f"{_PREFIX}tokens"]
        is_pieces = metadata.get(f"{_PREFIX}model") == "llama"
        types = metadata.get(f"{_PREFIX}token_type") or [_NORMAL] * len(tokens)
        if len(types) != len(tokens):
            raise LoadFailed(
                f"the GGUF file has {len(tokens)} tokens and the types of {len(types)} "
                "(tokenizer.ggml.token_type)"
            )
        # What files of SentencePiece need not say.
        metadata = Described({
            **({f"{_PREFIX}bos_token_id": 1, f"{_PREFIX}eos_token_id": 2} if is_pieces else {}),
            **metadata,
        }, "the GGUF file")  # fmt: skip
        eos = metadata[f"{_PREFIX}eos_token_id"]
        named = [metadata.get(f"{_PREFIX}{end}_token_id", eos) for end in ("eot", "eom")]
        bos = metadata.get(f"{_PREFIX}bos_token_id")
        for index in (eos, *named, bos):
            if index is not None and not 0 <= index < len(tokens):
                raise LoadFailed(
                    f"the GGUF file's metadata name token {index} of a vocabulary of {len(tokens)}"
                )
        ends = (eos, *named, *_ends_of_turns(tokens, types))
        return cls(tokens, types, bos, tuple(dict.fromkeys(ends)))

    def text(self, index: int) -> str:
        return self.tokens[index]

    def added(self) -> list[dict[str, Any]]:
        """Those that are found in a text before anything else."""
        return [
            {
                "id": index, "content": text, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": kind != _USER_DEFINED,
            }
            for index, (text, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN) and text
        ]  # fmt: skip

    def vocabulary(self) -> dict[str, int]:
        """Ids by text. Raises LoadFailed where a text has two."""
        found = {text: index for index, text in enumerate(self.tokens)}
        if len(found) < len(self.tokens):
            twice = next(text for index, text in enumerate(self.tokens) if found[text] != index)
            raise LoadFailed(f"the GGUF file has token {twice[:64]!r} twice")
        return found


def _ends_of_turns(tokens: Sequence[str], types: Sequence[int]) -> Iterator[int]:
    control = {
        text: index
        for index, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == _CONTROL
    }
    for text in _ENDS:
        goes_on = _GOES_ON_BEHIND.get(text)
        if text in control and not (goes_on and goes_on <= control.keys()):
            yield control[text]


def _byte_pairs(metadata: Described, marks: _Marks) -> dict[str, Any]:
    pre = pre_tokenizer(metadata.get(f"{_PREFIX}pre", "default"))
    model = {
        "type": "BPE",
        "ignore_merges": pre.takes_whole_words,
        "vocab": marks.vocabulary(),
        "merges": [_merge(text) for text in metadata[f"{_PREFIX}merges"]],
    }
    return {
        **_around(metadata, marks, adds_bos=pre.adds_bos),
        "normalizer": pre.normalizer,
        "pre_tokenizer": pre.cutter,
        "decoder": pre.steps[-1] if pre.steps[-1]["type"] == "ByteLevel" else _BYTES_TO_TEXT,
        "model": model,
    }


_BYTES_TO_TEXT = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
}  # fmt: skip


def _merge(text: str) -> tuple[str, str]:
    # A token may begin with a space; none that is merged ends with one.
    left, _, right = text[1:].partition(" ")
    return text[:1] + left, right


def _sentence_pieces(metadata: Described, marks: _Marks) -> dict[str, Any]:
    adds_space = metadata.get(f"{_PREFIX}add_space_prefix", True)
    scores = metadata[f"{_PREFIX}scores"]
    if len(scores) < len(marks.tokens):
        raise LoadFailed(
            f"the GGUF file has {len(marks.tokens)} tokens and the scores of {len(scores)} "
            "(tokenizer.ggml.scores)"
        )
    unknown = metadata.get(f"{_PREFIX}unknown_token_id", 0)
    return {
        **_around(metadata, marks, adds_bos=True),
        "normalizer": spaces_as_pieces(adds_space=adds_space),
        "pre_tokenizer": None,
        "decoder": pieces_as_text(adds_space=adds_space),
        "model": piece_model(
            marks.vocabulary(),
            scores,
            [kind == _NORMAL for kind in marks.types],
            marks.text(unknown) if 0 <= unknown < len(marks.tokens) else None,
            has_bytes=_BYTE in marks.types,
        ),
    }


def _around(metadata: Described, marks: _Marks, *, adds_bos: bool) -> dict[str, Any]:
    """What is the same for all kinds."""
    first = marks.bos if metadata.get(f"{_PREFIX}add_bos_token", adds_bos) else None
    last = marks.ends[0] if metadata.get(f"{_PREFIX}add_eos_token", False) else None
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": marks.added(),
        "post_processor": _post_processor(marks, first, last),
    }


def _post_processor(marks: _Marks, first: int | None, last: int | None) -> dict[str, Any] | None:
    named = {marks.text(mark): mark for mark in (first, last) if mark is not None}
    if not named:
        return None

    def row(mark: int | None) -> list[dict[str, Any]]:
        return [] if mark is None else [{"SpecialToken": {"id": marks.text(mark), "type_id": 0}}]

    def text(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    return {
        "type": "TemplateProcessing",
        "single": [*row(first), text("A"), *row(last)],
        "pair": [*row(first), text("A"), text("B"), *row(last)],
        "special_tokens": {
            name: {"id": name, "ids": [mark], "tokens": [name]} for name, mark in named.items()
        },
    }


def _refuse_unread(metadata: Described) -> None:
    for name, value in metadata.items():
        own = name.removeprefix(_PREFIX)
        if own == name or own in _READ or own in _SAYS_NOTHING:
            continue
        if value != _NEUTRAL.get(own, ...):
            raise LoadFailed(
                f"the GGUF file has {name} {str(value)[:64]}, which changes tokens in a way that "
                "is not supported"
            )


def _refuse_other_types(metadata: Described) -> None:
    for own, kinds in _ARRAYS.items():
        value = metadata.get(f"{_PREFIX}{own}", [])
        if not isinstance(value, list) or not isinstance(next(iter(value), kinds[0]()), kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise _of_other_type(f"{_PREFIX}{own}", value, f"an array of {names}")
    for own in _READ:
        value = metadata.get(f"{_PREFIX}{own}", 0)
        if own.endswith("_token_id") and type(value) is not int:
            raise _of_other_type(f"{_PREFIX}{own}", value, "a whole number")
    for name in _TEXTS:
        if not isinstance(metadata.get(name, ""), str):
            raise _of_other_type(name, metadata[name], "a text")


def _of_other_type(name: str, value: Any, wanted: str) -> LoadFailed:
    return LoadFailed(f"the GGUF file has {name} {str(value)[:64]}; it must be {wanted}")
