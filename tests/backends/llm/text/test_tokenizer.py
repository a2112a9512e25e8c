"""Tokenizers: those built from GGUF metadata split text as the models' own do."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from format_templates import HARMONY
from gguf_files import TEXT, trained, write_gguf
from scripted_llama import EOS, write_script
from tokenizers import pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from trivet.backends.api import LoadFailed, Token
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, hub_tokenizer
from trivet.backends.llm.weights.documents import load_tokenizer_files

SMOLLM2 = Path(__file__).parents[4] / "model_repository" / "smollm2" / "1" / "model.gguf"
WHOLE_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  leading and trailing  ",
    "It's we'll I'VE they'd O'Neill 'quoted'",
    "tabs\tand\nnew\r\nlines\n\n\n",
    "x1y22z333 1234567890 3.14 1,000",
    "def f(x):\n    return x ** 2  # squared\n",
    "naïve café Größe où ça",
    "東京都に行きました。 Привет, мир! שלום مرحبا",
    "🙂🙃 👨‍👩‍👧‍👦 é́ e\u0301",
    "\x00\x01\x7f\u200b\ufeff",
    "!!!???... --- === <<>> {}[]()",
    "https://example.org/a?b=c&d=%20#e",
    TEXT,
]


def files_of(metadata: dict[str, Any]) -> TokenizerFiles:
    return gguf_tokenizer(Described(metadata, "the metadata"))


def built(metadata: dict[str, Any]) -> Tokenizer:
    """From GGUF metadata."""
    return Tokenizer.from_files(files_of(metadata))


def transformers_gguf(path: Path) -> Any:
    """What transformers makes of the same file."""
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    """The real one."""
    if not SMOLLM2.exists():
        pytest.skip("run model_repository/build.py")
    return Tokenizer.from_files(load_tokenizer_files(SMOLLM2))


# -- the real tokenizer ----------------------------------------------------------------------------


def test_smollm2_encodes_as_transformers_does(smollm2: Tokenizer) -> None:
    theirs = transformers_gguf(SMOLLM2)
    chat = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    for text in [*TEXTS, chat]:
        assert smollm2.encode(text, add_special_tokens=True) == theirs(text).input_ids, text


def test_smollm2_gives_texts_back(smollm2: Tokenizer) -> None:
    for text in TEXTS:
        ids = smollm2.encode(text, add_special_tokens=False)
        assert smollm2.decode(ids, skip_special_tokens=False) == text


def test_smollm2_takes_every_digit_apart_before_spaces_are_joined(smollm2: Tokenizer) -> None:
    # As llama.cpp reads the name 'smollm'; transformers ignores it and leaves the spaces apart.
    tokens = [token.text for token in smollm2.tokenize("a  12", add_special_tokens=False)]
    assert tokens == ["a", "  ", "1", "2"]


def test_smollm2_knows_its_marks(smollm2: Tokenizer) -> None:
    start, *_, end = smollm2.encode("<|im_start|>user<|im_end|>", add_special_tokens=False)
    assert smollm2.is_special(start)
    assert smollm2.eos_token_ids == (end,)
    assert smollm2.decode([start, end], skip_special_tokens=True) == ""
    assert smollm2.decode([start, end], skip_special_tokens=False) == "<|im_start|><|im_end|>"


# -- built from metadata ---------------------------------------------------------------------------


def split_by(regex: str) -> Any:
    """A pre-tokenizer as the models' tokenizer.json have them."""
    split = pre_tokenizers.Split(tokenizers.Regex(regex), behavior="isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_metadata_encode_as_transformers_reads_them(tmp_path: Path, pre: str) -> None:
    pre_tokenizer = split_by(PRETOKENIZE_REGEX) if pre == "qwen2" else WHOLE_WORDS
    metadata = trained(pre_tokenizer) | {"tokenizer.ggml.pre": pre}
    metadata["tokenizer.ggml.add_bos_token"] = False
    path = tmp_path / "model.gguf"
    write_gguf(path, "qwen2" if pre == "qwen2" else "llama", metadata, {})
    ours, theirs = Tokenizer.from_files(load_tokenizer_files(path)), transformers_gguf(path)
    for text in [*TEXTS, "<s>marks</s> in<turn> <think>between"]:
        if pre == "qwen2":
            text = text.replace("e\u0301", "")  # theirs composes nothing
        assert ours.encode(text, add_special_tokens=True) == theirs(text).input_ids, text


def test_numbers_are_taken_in_the_groups_that_the_name_says() -> None:
    groups = {"llama-bpe": [3, 3, 1], "qwen2": [1] * 7, "smollm": [1] * 7, "gpt-2": [7]}
    for pre, wanted in groups.items():
        tokenizer = pieces(pre)
        assert [len(piece) for piece, _ in tokenizer.pre_tokenize_str("1234567")] == wanted, pre


def pieces(pre: str) -> Any:
    """The pre-tokenizer that a name of GGUF stands for."""
    files = files_of(trained(WHOLE_WORDS) | {"tokenizer.ggml.pre": pre})
    return tokenizers.Tokenizer.from_str(files.json).pre_tokenizer


def with_whole_word(pre: str) -> tuple[Tokenizer, int]:
    """A vocabulary with a token that no merges lead to."""
    metadata = trained(WHOLE_WORDS) | {"tokenizer.ggml.pre": pre}
    tokens = [*metadata["tokenizer.ggml.tokens"], "zqx"]
    kinds = [*metadata["tokenizer.ggml.token_type"], 1]
    changed = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    return built(metadata | changed), len(tokens) - 1


def test_llama3_takes_a_word_that_is_a_token_without_merging() -> None:
    tokenizer, word = with_whole_word("llama-bpe")
    assert tokenizer.encode("zqx", add_special_tokens=False) == [word]


def test_others_reach_tokens_by_merging_only() -> None:
    tokenizer, word = with_whole_word("gpt-2")
    assert word not in tokenizer.encode("zqx", add_special_tokens=False)


@pytest.mark.parametrize(
    ("pre", "flag", "is_added"),
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("gpt-2", None, False),
        ("gpt-2", True, True),
    ],
)
def test_texts_begin_with_a_mark_where_the_file_or_the_model_says_so(
    pre: str, flag: bool | None, is_added: bool
) -> None:
    metadata = trained(WHOLE_WORDS) | {"tokenizer.ggml.pre": pre}
    if flag is not None:
        metadata["tokenizer.ggml.add_bos_token"] = flag
    tokenizer = built(metadata)
    plain = tokenizer.encode("the", add_special_tokens=False)
    marked = tokenizer.encode("the", add_special_tokens=True)
    assert marked == ([0, *plain] if is_added else plain)


def test_qwen_composes_characters_first() -> None:
    tokenizer = built(trained(WHOLE_WORDS) | {"tokenizer.ggml.pre": "qwen2"})
    ids = tokenizer.encode("cafe\u0301", add_special_tokens=False)
    assert ids == tokenizer.encode("caf\u00e9", add_special_tokens=False)


def test_user_defined_tokens_stay_whole_and_are_no_marks() -> None:
    metadata = trained(WHOLE_WORDS)
    think = metadata["tokenizer.ggml.tokens"].index("<think>")
    tokenizer = built(metadata)
    ids = tokenizer.encode(" the<think> the", add_special_tokens=False)
    assert ids[1] == think
    assert not tokenizer.is_special(think)
    assert tokenizer.decode(ids, skip_special_tokens=True) == " the<think> the"


def test_ids_are_those_of_the_file() -> None:
    metadata = trained(WHOLE_WORDS)
    document = json.loads(files_of(metadata).json)
    vocabulary = document["model"]["vocab"]
    vocabulary |= {token["content"]: token["id"] for token in document["added_tokens"]}
    assert vocabulary == {text: i for i, text in enumerate(metadata["tokenizer.ggml.tokens"])}


def test_end_of_turn_is_an_end_too() -> None:
    metadata = trained(WHOLE_WORDS) | {"tokenizer.ggml.eot_token_id": 2}
    files = files_of(metadata | {"tokenizer.chat_template": "{{ messages }}"})
    assert files.eos_token_ids == (1, 2)
    assert files.special_texts == {"eos_token": "</s>", "bos_token": "<s>"}
    assert files.chat_template == "{{ messages }}"


# -- Hugging Face folders --------------------------------------------------------------------------


def write_folder(folder: Path, **documents: Any) -> Path:
    """A tokenizer and JSON files beside it, by stem."""
    inner = tokenizers.Tokenizer.from_str(files_of(trained(WHOLE_WORDS)).json)
    inner.enable_truncation(4)
    inner.enable_padding(length=9)
    inner.save(str(folder / "tokenizer.json"))
    for stem, document in documents.items():
        (folder / f"{stem}.json").write_text(json.dumps(document))
    return folder


def test_padding_and_truncation_of_the_file_do_not_count(tmp_path: Path) -> None:
    files = hub_tokenizer(write_folder(tmp_path, config={"eos_token_id": 1}))
    tokenizer = Tokenizer.from_files(files)
    for text in ("the", "the " * 30):
        ids = tokenizer.encode(text, add_special_tokens=True)
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("documents", "ends"),
    [
        ({"config": {"eos_token_id": 1}}, (1,)),
        ({"config": {"eos_token_id": 1}, "generation_config": {"eos_token_id": [1, 2]}}, (1, 2)),
        ({"config": {}, "tokenizer_config": {"eos_token": "</s>"}}, (1,)),
        ({"config": {}, "tokenizer_config": {"eos_token": {"content": "<turn>"}}}, (2,)),
    ],
)
def test_ends_come_from_the_first_file_that_has_them(
    tmp_path: Path, documents: dict[str, Any], ends: tuple[int, ...]
) -> None:
    assert hub_tokenizer(write_folder(tmp_path, **documents)).eos_token_ids == ends


def test_recommended_sampling_is_read_as_far_as_it_is_sound(tmp_path: Path) -> None:
    recommended = {
        "eos_token_id": 1, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_new_tokens": 50,
        "min_p": "much", "repetition_penalty": -1, "do_sample": True, "num_beams": 4,
    }  # fmt: skip
    write_folder(tmp_path, config={"eos_token_id": 1}, generation_config=recommended)
    found = hub_tokenizer(tmp_path).sampling_defaults
    assert found == {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_tokens": 50}


def test_chat_template_of_its_own_file_wins(tmp_path: Path) -> None:
    config = {"eos_token": "</s>", "chat_template": "old"}
    write_folder(tmp_path, tokenizer_config=config)
    assert hub_tokenizer(tmp_path).chat_template == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert hub_tokenizer(tmp_path).chat_template == "new"


def test_default_is_taken_of_several_chat_templates(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    write_folder(tmp_path, tokenizer_config={"eos_token": "</s>", "chat_template": templates})
    assert hub_tokenizer(tmp_path).chat_template == "d"


def test_folder_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="has an 'eos_token_id'"):
        hub_tokenizer(write_folder(tmp_path))


def test_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"no 'tokenizer\.json'"):
        hub_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": {"type": "BPE"}}'])
def test_tokenizer_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    write_folder(tmp_path, tokenizer_config={"eos_token": "</s>"})
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(LoadFailed, match="the tokenizer cannot be read"):
        Tokenizer.from_files(hub_tokenizer(tmp_path))


# -- what a tokenizer does -------------------------------------------------------------------------


def test_part_of_a_character_is_a_replacement() -> None:
    tokenizer = built(trained(WHOLE_WORDS))
    ids = tokenizer.encode("🙃", add_special_tokens=False)
    assert len(ids) > 1
    assert "\ufffd" in tokenizer.decode(ids[:1], skip_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "🙃"


def test_tokens_say_where_their_characters_are() -> None:
    tokenizer = built(trained(WHOLE_WORDS))
    the, end = tokenizer.encode(" the</s>", add_special_tokens=False)
    found = tokenizer.tokenize(" the</s>", add_special_tokens=False)
    assert found == [Token(the, " the", 0, 4), Token(end, "</s>", 4, 8)]


def test_tokenizer_goes_through_its_own_json() -> None:
    tokenizer = built(trained(WHOLE_WORDS))
    again = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer.to_json()), tokenizer.eos_token_ids)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=True)
        assert again.encode(text, add_special_tokens=True) == ids


def test_a_format_s_own_end_tokens_end_outputs_too(tmp_path: Path) -> None:
    folder = write_script(tmp_path, [["<|return|>", "<|call|>"]], chat_template=HARMONY)
    files = hub_tokenizer(folder)
    tokenizer = Tokenizer.from_files(files)
    marks = [
        tokenizer.encode(text, add_special_tokens=False) for text in ("<|return|>", "<|call|>")
    ]
    assert files.eos_token_ids == (EOS, *marks[0], *marks[1])
    plain = hub_tokenizer(write_script(tmp_path / "plain", chat_template="{{ messages }}"))
    assert plain.eos_token_ids == (EOS,)
