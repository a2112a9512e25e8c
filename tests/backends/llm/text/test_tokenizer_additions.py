"""Tokens and keys beside tokenizer.json are read as transformers does, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_llama import write_script
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import AutoTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from trivet.backends.api import LoadFailed
from trivet.backends.llm.text import tokenizer as served
from trivet.backends.llm.text.tokenizer_files import hub_tokenizer

PLAIN = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
EXTRA = PLAIN | {"content": "<extra>", "special": True}
MORE = PLAIN | {"content": " more", "special": False, "rstrip": True}
TEXTS = ["<extra>z", "a", " a", "a<extra> a", "x more  y<eos>", "<call>", "\na b", ""]
FOLDERS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "nothing": ({}, {}),
    "decoder": ({"added_tokens_decoder": {"257": EXTRA}}, {}),
    "decoder, two": ({"added_tokens_decoder": {"258": MORE, "257": EXTRA}}, {}),
    "decoder, known": ({"added_tokens_decoder": {"256": PLAIN | {"content": "<eos>"}}}, {}),
    "file": ({}, {"<extra>": 257}),
    "file, out of order": ({}, {"<call>": 258, "<extra>": 257}),
    "file, special": ({"extra_special_tokens": ["<extra>"]}, {"<extra>": 257}),
    "file beside decoder": ({"added_tokens_decoder": {"257": EXTRA}}, {"<call>": 257}),
    **{
        f"{kind}, {space}": ({"tokenizer_class": kind, "add_prefix_space": space}, {})
        for kind in (
            "GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "Qwen2TokenizerFast",
            "LlamaTokenizer", "PreTrainedTokenizerFast",
        )
        for space in (True, False)
    },
}  # fmt: skip


def write(folder: Path, config: dict[str, Any], added: dict[str, int]) -> Path:
    write_script(folder, tokenizer_config=config, num_spare_tokens=8)
    if str(config.get("tokenizer_class")).startswith("Qwen2"):
        path = folder / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(path))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        tokenizer.save(str(path))
    if added:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model", *FOLDERS[name])
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = served.Tokenizer.from_files(hub_tokenizer(folder))
    found = [ours.encode(text, add_special_tokens=True) for text in TEXTS]
    assert found == [theirs.encode(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("config", "added", "reason"),
    [
        (
            {"added_tokens_decoder": {"300": EXTRA}},
            {},
            "added_tokens_decoder gives token '<extra>'",
        ),
        ({}, {"<extra>": 300}, "added_tokens.json gives token '<extra>' the id 300"),
        ({"added_tokens_decoder": {"x": EXTRA}}, {}, "'x' is no id of a token"),
        ({"added_tokens_decoder": ["<extra>"]}, {}, "added_tokens_decoder must be an object"),
        ({"added_tokens_decoder": {"257": {"id": 1}}}, {}, "has no text as its 'content'"),
        (
            {"added_tokens_decoder": {"257": {"content": "c", "lstrip": "x"}}},
            {},
            "added_tokens_decoder: token 'c' cannot be read",
        ),
    ],
)
def test_tokens_that_cannot_be_added_are_refused(
    tmp_path: Path, config: dict[str, Any], added: dict[str, int], reason: str
) -> None:
    with pytest.raises(LoadFailed) as caught:
        hub_tokenizer(write(tmp_path / "model", config, added))
    assert reason in str(caught.value)
