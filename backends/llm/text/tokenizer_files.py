"""Where a tokenizer's parts come from: tokenizer.json and its neighbours."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.formats.registry import tool_format, tool_format_of
from trivet.backends.llm.text.tokenizer_additions import (
    added_tokens,
    optional_json,
    with_added_tokens,
    with_space_in_front,
)

_RECOMMENDED = {
    "temperature": ("temperature", 0.0, 2.0),
    "top_p": ("top_p", 1e-6, 1.0),
    "top_k": ("top_k", 0, 2**31),
    "min_p": ("min_p", 0.0, 1.0),
    "repetition_penalty": ("repetition_penalty", 1e-6, 100.0),
    "max_new_tokens": ("max_tokens", 1, 2**31),
}
"""What is taken of a generation_config.json, as vLLM does: our name, least and most."""


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


def with_ends(ends: Sequence[int], text: str, template: str) -> tuple[int, ...]:
    """End tokens, and those that the chat template's format of calls has besides."""
    form = tool_format(tool_format_of(template))
    if form is not None and form.ends:
        tokenizer = read_tokenizer(text)
        ends = [*ends, *map(tokenizer.token_to_id, form.ends)]
    return tuple(dict.fromkeys(end for end in ends if end is not None))
