"""SentencePiece's vocabularies as byte-pair merges, in the form of tokenizer.json.

SentencePiece joins the neighbours whose joint piece has the highest score, and takes what is no
piece apart into bytes. Merges in the order of the scores do the same (Kudo and Richardson,
2018; the way of transformers' converters).
"""

from collections.abc import Mapping, Sequence
from typing import Any

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in a piece."""


def piece_model(
    vocabulary: Mapping[str, int],
    scores: Sequence[float],
    mergeable: Sequence[bool],
    unknown: str | None,
    *,
    has_bytes: bool,
) -> dict[str, Any]:
    """The model. `mergeable`: which pieces text is made of, by their ids."""
    return {
        "type": "BPE",
        "unk_token": unknown,
        "fuse_unk": True,
        "byte_fallback": has_bytes,
        "ignore_merges": False,
        "vocab": dict(vocabulary),
        "merges": _merges(vocabulary, scores, mergeable),
    }


def _merges(
    vocabulary: Mapping[str, int], scores: Sequence[float], mergeable: Sequence[bool]
) -> list[tuple[str, str]]:
    pieces = {piece for piece, index in vocabulary.items() if mergeable[index]}
    ordered = sorted(pieces, key=lambda piece: (-scores[vocabulary[piece]], vocabulary[piece]))
    return [
        (piece[:cut], piece[cut:])
        for piece in ordered
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]


def spaces_as_pieces(*, adds_space: bool) -> dict[str, Any]:
    """The normalizer; `adds_space`: a space goes before each text between marks."""
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if not adds_space:
        return replaced
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replaced]}


def pieces_as_text(*, adds_space: bool) -> dict[str, Any]:
    """The decoder, which takes the space that was added away again."""
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if adds_space:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}
