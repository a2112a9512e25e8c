"""SentencePiece's tokenizers from GGUF metadata, and what such metadata say of all kinds."""

import json
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import tokenizers
from gguf_files import CONTROL, NORMAL, TEXT, USER_DEFINED, trained
from tokenizers import models, normalizers, pre_tokenizers, trainers

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.text.detokenizer import Detokenizer
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.text.literal import Literals
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles

UNKNOWN, UNUSED, BYTE = 2, 5, 6
KEYS = "tokenizer.ggml."
SPACE = "▁"
LETTERS = [
    "a", "é", "東", "\U0001d518", "1", "2", " ", "  ", "   ", "\n", "\n\n", ".", ",", "the",
    "They", "x_y",
]  # fmt: skip


def texts() -> list[str]:
    chance = random.Random(7)
    made = ["".join(chance.choices(LETTERS, k=chance.randrange(1, 30))) for _ in range(120)]
    return [*TEXT.splitlines(), "", " ", "   lead", "trail  ", "<0x0A>", "▁x", "q\u00a0r", *made]


@cache
def pieces() -> tuple[str, ...]:
    """A vocabulary of byte pairs, the best first."""
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False, special_tokens=[])
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    tokenizer.train_from_iterator([TEXT + "   ".join(TEXT.split())], trainer)
    found = tokenizer.get_vocab()
    return tuple(sorted(found, key=found.__getitem__))


def sentence_pieces(**more: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes of a SentencePiece model."""
    rows: list[tuple[str, float, int]] = [
        ("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL),
        *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
        *((piece, -float(index), NORMAL) for index, piece in enumerate(pieces())),
        ("<turn>", -1000.0, CONTROL), ("\n\n", -1000.0, USER_DEFINED),
        ("   ", -1000.0, USER_DEFINED), ("[PAD0]", -10000.0, UNUSED),
    ]  # fmt: skip
    tokens, scores, types = map(list, zip(*rows, strict=True))
    columns = {"tokens": tokens, "scores": scores, "token_type": types}
    return {f"{KEYS}{name}": value for name, value in ({"model": "llama"} | columns | more).items()}


def files_of(metadata: dict[str, Any]) -> TokenizerFiles:
    return gguf_tokenizer(Described(metadata, "the GGUF file"))


def built(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_files(files_of(metadata))


def joined(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's algorithm: the best pair of neighbours, then again."""
    symbols = list(text)
    while True:
        pairs = [
            (scores[a + b], -place)
            for place, (a, b) in enumerate(pairwise(symbols))
            if a + b in scores
        ]
        if not pairs:
            break
        place = -max(pairs)[1]
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
    found: list[str] = []
    for symbol in symbols:
        whole = symbol in scores
        found += [symbol] if whole else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return found


@pytest.mark.parametrize("adds_space", [True, False])
def test_texts_are_joined_as_sentencepiece_does(adds_space: bool) -> None:
    metadata = sentence_pieces(add_space_prefix=adds_space)
    tokenizer = built(metadata)
    scores = {piece: -float(index) for index, piece in enumerate(pieces())}
    for text in texts():
        if "   " in text or "\n\n" in text:
            continue  # taken first
        spaced = (SPACE if adds_space and text else "") + text.replace(" ", SPACE)
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.spellings(ids) == joined(spaced, scores), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text.replace(SPACE, " ")


def test_tokens_that_users_defined_are_taken_first_and_give_their_text_back() -> None:
    tokenizer = built(sentence_pieces(add_space_prefix=False))
    ids = tokenizer.encode("the\n\n   the", add_special_tokens=False)
    assert tokenizer.spellings(ids)[-3:-1] == ["\n\n", "   "]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the\n\n   the"


@pytest.mark.parametrize(
    ("more", "ends_too", "first", "last"),
    [
        ({}, False, "<s>", ""),
        ({"add_bos_token": False}, False, "", ""),
        ({"add_eos_token": True}, True, "<s>", "</s>"),
    ],
)
def test_texts_have_marks_around_them_as_the_file_says(
    more: dict[str, Any], ends_too: bool, first: str, last: str
) -> None:
    tokenizer = built(sentence_pieces(**more))
    found = tokenizer.spellings(tokenizer.encode("the", add_special_tokens=True))
    assert (found[0] == "<s>") == bool(first)
    assert (found[-1] == "</s>") == ends_too == bool(last)
    assert tokenizer.eos_token_ids == (2,)


def test_spaces_in_front_of_outputs_are_their_own() -> None:
    tokenizer = built(sentence_pieces())
    ids = tokenizer.encode("the they", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the they"
    output = Detokenizer(tokenizer.within_text, skip_special_tokens=True)
    assert "".join(output.push([each]) for each in ids) + output.flush() == " the they"


@pytest.mark.parametrize("text", ["the <turn>they", "<s><turn> the", "a<s>the <s> they"])
def test_marks_of_clients_are_text_without_a_space_before_what_follows(text: str) -> None:
    tokenizer = built(sentence_pieces())
    literals = Literals(tokenizer.special_texts)
    prompt = literals.prompt("<s>" + literals.marked(text) + "<turn>the")
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    assert [tokenizer.spellings(ids).count(mark) for mark in ("<s>", "<turn>")] == [1, 1]
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"<s> {text}<turn> the"


def byte_pairs(**more: Any) -> dict[str, Any]:
    metadata = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    return metadata | {f"{KEYS}{name}": value for name, value in more.items()}


def with_marks(*texts: str) -> dict[str, Any]:
    """Further control tokens."""
    metadata = byte_pairs()
    metadata[f"{KEYS}tokens"] = [*metadata[f"{KEYS}tokens"], *texts]
    metadata[f"{KEYS}token_type"] = [*metadata[f"{KEYS}token_type"], *(CONTROL,) * len(texts)]
    return metadata


@pytest.mark.parametrize(
    ("marks", "ends"),
    [
        (("<end_of_turn>",), ("</s>", "<end_of_turn>")),
        (("<|eom_id|>", "<|eot_id|>"), ("</s>", "<|eot_id|>", "<|eom_id|>")),
        (("<|end|>", "<|user|>"), ("</s>", "<|end|>")),
        (("<|end|>", "<|return|>", "<|call|>"), ("</s>",)),
    ],
)
def test_marks_that_end_turns_end_outputs(marks: tuple[str, ...], ends: tuple[str, ...]) -> None:
    tokenizer = built(with_marks(*marks))
    assert tuple(tokenizer.spellings(tokenizer.eos_token_ids)) == ends


def test_recommended_sampling_is_read() -> None:
    asked = {"temp": 0.6, "top_k": 20, "top_p": 0.9, "penalty_repeat": 1.1, "mirostat": 1}
    files = files_of(byte_pairs() | {f"general.sampling.{k}": v for k, v in asked.items()})
    assert files.sampling_defaults == {
        "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (lambda: byte_pairs(model="t5"), r"of kind 't5' \(tokenizer.ggml.model\)"),
        (lambda: byte_pairs(suppress_tokens=[3]), r"tokenizer.ggml.suppress_tokens \[3\]"),
        (lambda: byte_pairs(add_sep_token=True), "tokenizer.ggml.add_sep_token True"),
        (lambda: byte_pairs(frob=1), "tokenizer.ggml.frob 1, which changes tokens"),
        (lambda: byte_pairs(bos_token_id=9999), "name token 9999 of a vocabulary of"),
        (lambda: byte_pairs(token_type=[1]), "tokens and the types of 1"),
        (lambda: with_marks("<s>"), "has token '<s>' twice"),
        (lambda: sentence_pieces(scores=[0.0]), "tokens and the scores of 1"),
        (lambda: sentence_pieces(remove_extra_whitespaces=True), "remove_extra_whitespaces True"),
        (lambda: sentence_pieces(precompiled_charsmap=[1]), r"precompiled_charsmap \[1\]"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(
    metadata: Callable[[], dict[str, Any]], reason: str
) -> None:
    with pytest.raises(LoadFailed, match=reason):
        files_of(metadata())


def test_keys_that_ask_for_nothing_are_taken() -> None:
    quiet = {"add_sep_token": False, "suppress_tokens": [], "padding_token_id": 3}
    assert json.loads(files_of(byte_pairs(**quiet)).json) == json.loads(files_of(byte_pairs()).json)


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokens", "abcd"), ("merges", [1]), ("scores", ["a"]), ("eos_token_id", "x"),
     ("unknown_token_id", 1.5), ("token_type", 3)],
)  # fmt: skip
def test_values_of_other_types_are_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(LoadFailed, match=f"has {KEYS}{key} .*; it must be"):
        files_of(byte_pairs() | {f"{KEYS}{key}": value})
