"""Where a tokenizer's parts come from: tokenizer.json and its neighbours, or GGUF metadata."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from trivet.backends.api import LoadFailed
from trivet.backends.formats.registry import tool_format, tool_format_of
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.text.tokenizer_additions import (
    added_tokens,
    optional_json,
    with_added_tokens,
    with_space_in_front,
)

# Regular expressions of pre-tokenizers by GGUF's name of them; from the models' tokenizer.json.
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_LLAMA3 = {"llama-bpe", "llama3", "llama-v3"}
_SPLITS = {"qwen2": _QWEN2_SPLIT, **dict.fromkeys(_LLAMA3, _LLAMA3_SPLIT)}
_SINGLE_DIGITS = {"smollm", "default-digits"}
_RECOMMENDED = {
    "temperature": ("temperature", 0.0, 2.0),
    "top_p": ("top_p", 1e-6, 1.0),
    "top_k": ("top_k", 0, 2**31),
    "min_p": ("min_p", 0.0, 1.0),
    "repetition_penalty": ("repetition_penalty", 1e-6, 100.0),
    "max_new_tokens": ("max_tokens", 1, 2**31),
}
"""What is taken of a generation_config.json, as vLLM does: our name, least and most."""
_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """All that a tokenizer is made of."""

    json: str
    """In the form of tokenizer.json."""
    eos_token_ids: tuple[int, ...]
    special_texts: Mapping[str, str]
    """bos_token and the like, for the chat template."""
    chat_template: str = ""
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    """By the names of Sampling's fields: what generation_config.json recommends."""
    tool_template: str = ""
    """For requests with tools, where the model has one of its own."""


def read_tokenizer(text: str) -> Any:
    """The library's tokenizer from the text of a tokenizer.json. Raises LoadFailed."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise LoadFailed(f"the tokenizer cannot be read: {error}") from error


def hub_tokenizer(folder: Path) -> TokenizerFiles:
    """From a Hugging Face folder. Raises LoadFailed."""
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LoadFailed("the model's folder has no 'tokenizer.json'") from None
    except OSError as error:
        raise LoadFailed(f"'tokenizer.json' cannot be read: {error.strerror}") from error
    config = optional_json(folder / "tokenizer_config.json")
    text = completed_tokenizer(text, folder, config)
    special = {
        name: value if isinstance(value, str) else value["content"]
        for name, value in config.items()
        if name.endswith("_token") and isinstance(value, str | dict)
    }
    # Processors of images had their templates in a file of its own before transformers 5.
    told = optional_json(folder / "chat_template.json").get("chat_template")
    templates = _hub_templates(folder, told or config.get("chat_template") or "")
    recommended = sampling_defaults(optional_json(folder / "generation_config.json"))
    ends = with_ends(_hub_eos(folder, text, special), text, templates.get("default", ""))
    return TokenizerFiles(
        text,
        ends,
        special,
        templates.get("default", ""),
        recommended,
        templates.get("tool_use", ""),
    )


def _hub_templates(folder: Path, told: Any) -> dict[str, str]:
    """Chat templates by name, of the config or, before that, of files: as in transformers."""
    if isinstance(told, list):
        told = {each["name"]: each["template"] for each in told}
    found: dict[str, str] = {"default": told} if isinstance(told, str) else told
    own_file = folder / "chat_template.jinja"
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    if own_file.exists():
        files["default"] = own_file
    if not files:
        return found
    return {name: path.read_text(encoding="utf-8") for name, path in files.items()}


def completed_tokenizer(text: str, folder: Path, config: Mapping[str, Any]) -> str:
    """A tokenizer.json with what stands beside it in its folder. Raises LoadFailed."""
    legacy = optional_json(folder / "added_tokens.json")
    try:
        document = json.loads(text)
    except ValueError:
        return text  # the library says what is wrong
    if isinstance(document, dict) and with_space_in_front(document, config):
        text = json.dumps(document, ensure_ascii=False)
    tokens = list(added_tokens(config, legacy))
    if not tokens:
        return text
    tokenizer = read_tokenizer(text)
    size = _vocabulary_size(optional_json(folder / "config.json"))
    if not with_added_tokens(tokenizer, tokens, size):
        return text
    completed: str = tokenizer.to_str()
    return completed


def _vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """As a config.json says, which may have its language model's apart."""
    of_text = config.get("text_config")
    for each in (config, of_text if isinstance(of_text, Mapping) else {}):
        if isinstance(size := each.get("vocab_size"), int):
            return size
    return None


def sampling_defaults(config: Mapping[str, Any]) -> dict[str, float]:
    """What a generation_config.json says of sampling, as far as it is what it should be."""
    found: dict[str, float] = {}
    for theirs, (ours, least, most) in _RECOMMENDED.items():
        value = config.get(theirs)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and least <= value <= most
        ):
            found[ours] = value
    return found


def _hub_eos(folder: Path, text: str, special: Mapping[str, str]) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        found = optional_json(folder / name).get("eos_token_id")
        if found is not None:
            return tuple(found) if isinstance(found, list) else (found,)
    found = read_tokenizer(text).token_to_id(special.get("eos_token", ""))
    if found is None:
        raise LoadFailed("neither generation_config.json nor config.json has an 'eos_token_id'")
    return (found,)


def gguf_tokenizer(metadata: Described) -> TokenizerFiles:
    """From GGUF metadata. Raises LoadFailed for a kind other than byte-level BPE."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise LoadFailed(
            f"the GGUF file's tokenizer is of kind '{kind}'; only 'gpt2' (byte-level BPE) is "
            "supported: use the Hugging Face folder of the model"
        )
    eos = metadata["tokenizer.ggml.eos_token_id"]
    special = {"eos_token": _token(metadata, eos)}
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    if bos is not None:
        special["bos_token"] = _token(metadata, bos)
    # End of turn is an end too; some files name it apart.
    ends = (eos, metadata.get("tokenizer.ggml.eot_token_id", eos))
    text = _bpe_json(metadata, special.get("bos_token"))
    template = metadata.get("tokenizer.chat_template", "")
    return TokenizerFiles(
        text,
        with_ends(ends, text, template),
        special,
        template,
        tool_template=metadata.get("tokenizer.chat_template.tool_use", ""),
    )


def with_ends(ends: Sequence[int], text: str, template: str) -> tuple[int, ...]:
    """End tokens, and those that the chat template's format of calls has besides."""
    form = tool_format(tool_format_of(template))
    if form is not None and form.ends:
        tokenizer = read_tokenizer(text)
        ends = [*ends, *map(tokenizer.token_to_id, form.ends)]
    return tuple(dict.fromkeys(end for end in ends if end is not None))


def _token(metadata: Described, index: int) -> str:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    if index >= len(tokens):
        raise LoadFailed(
            f"the GGUF file's metadata name token {index} of a vocabulary of {len(tokens)}"
        )
    return tokens[index]


def _bpe_json(metadata: Described, bos: str | None) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    pre = metadata.get("tokenizer.ggml.pre", "default")
    # Llama 3 takes a whole word that is a token without merging; GGUF files do not say so, nor
    # that its texts begin with a mark, nor that Qwen composes characters first.
    is_llama3 = pre in _LLAMA3
    tokenizer = Tokenizer(models.BPE(ignore_merges=is_llama3))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    if bos is not None and metadata.get("tokenizer.ggml.add_bos_token", is_llama3):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    # What is large is written here: a vocabulary that goes through the library twice takes seconds.
    document = json.loads(tokenizer.to_str())
    document["model"]["vocab"] = vocabulary
    document["model"]["merges"] = [
        merge.split(" ", 1) for merge in metadata["tokenizer.ggml.merges"]
    ]
    document["added_tokens"] = [
        {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": kind == _CONTROL}
        for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    return orjson.dumps(document).decode()


def _pre_tokenizer(name: str) -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if name in _SPLITS:
        split = Split(Regex(_SPLITS[name]), behavior="isolated")
        return Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    if name in _SINGLE_DIGITS:
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    if name in ("default", "gpt-2", "gpt2"):
        return ByteLevel(add_prefix_space=False)
    raise LoadFailed(
        f"the GGUF file's pre-tokenizer '{name}' is not known; use the Hugging Face folder of the "
        "model, which says how text is split"
    )
