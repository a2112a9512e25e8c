"""What stands beside a tokenizer.json and changes how a text is read, in the way of transformers:
tokens of tokenizer_config.json and added_tokens.json, and a space in front."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed

_HEEDING_SPACE = ("GPT2Tokenizer", "Qwen2Tokenizer")
"""The classes that put `add_prefix_space` into their pre-tokenizer; the others only keep it."""
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_DECODER = "added_tokens_decoder"
_OF_TOKENS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def added_tokens(
    config: Mapping[str, Any], legacy: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Ids, tokens and the file's key of each, in the order of ids. `legacy`: an added_tokens.json,
    which counts where tokenizer_config.json has no `added_tokens_decoder`. Raises LoadFailed."""
    found: dict[int, tuple[dict[str, Any], str]] = {}
    if "added_tokens_decoder" in config:
        for index, token in _mapping(
            config["added_tokens_decoder"], "added_tokens_decoder"
        ).items():
            if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
                raise LoadFailed(f"added_tokens_decoder[{index!r}] has no text as its 'content'")
            known = {name: token[name] for name in _OF_TOKENS if name in token}
            found[_index(index, "added_tokens_decoder")] = (known, "added_tokens_decoder")
    else:
        special = _special_texts(config)
        for text, given in legacy.items():
            is_special = text in special
            made = {"content": text, "normalized": not is_special, "special": is_special}
            found[_index(given, "added_tokens.json")] = (made, "added_tokens.json")
    for number, (token, key) in sorted(found.items()):
        yield number, token, key


def with_added_tokens(
    tokenizer: Any,
    tokens: Iterable[tuple[int, dict[str, Any], str]],
    vocabulary_size: int | None,
) -> bool:
    """Adds what the tokenizer lacks; whether there was any. Raises LoadFailed for ids that it does
    not give, as its tokens would be others than the model knows, and for those that the model,
    whose vocabulary is of that size, does not have."""
    from tokenizers import AddedToken

    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    missing = [each for each in tokens if each[1]["content"] not in known]
    for index, token, key in missing:
        content = token["content"]
        try:
            tokenizer.add_tokens([AddedToken(**token)])
        except TypeError as error:
            raise LoadFailed(f"{key}: token {content!r} cannot be read: {error}") from error
        if vocabulary_size is not None and index >= vocabulary_size:
            raise LoadFailed(
                f"{key} gives token {content[:64]!r} the id {index}, which is not in the model's "
                f"vocabulary of {vocabulary_size} (config.json, vocab_size)"
            )
        given = tokenizer.token_to_id(content)
        if given != index:
            raise LoadFailed(
                f"{key} gives token {content[:64]!r} the id {index}, but behind the tokens of "
                f"tokenizer.json it would be {given}: put it into tokenizer.json"
            )
    return bool(missing)


def with_space_in_front(document: dict[str, Any], config: Mapping[str, Any]) -> bool:
    """Writes `add_prefix_space` into a tokenizer.json; whether that changed it."""
    kind = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    wanted = config.get("add_prefix_space")
    if kind not in _HEEDING_SPACE or not isinstance(wanted, bool):
        return False
    changed = False
    outer = document.get("pre_tokenizer") or {}
    for each in (outer, *(outer.get("pretokenizers") or ())):
        if each.get("type") == "ByteLevel" and each.get("add_prefix_space") != wanted:
            each["add_prefix_space"] = wanted
            changed = True
    return changed


def optional_json(path: Path) -> dict[str, Any]:
    """A file's object; empty where there is none. Raises LoadFailed."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LoadFailed(f"'{path.name}' is no JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _special_texts(config: Mapping[str, Any]) -> set[str]:
    values = [config.get(name) for name in _NAMED]
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    values += more if isinstance(more, list) else []
    texts = (value.get("content") if isinstance(value, Mapping) else value for value in values)
    return {text for text in texts if isinstance(text, str)}


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise LoadFailed(f"tokenizer_config.json: {key} must be an object")
    return value


def _index(value: Any, key: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise LoadFailed(f"{key}: {value!r} is no id of a token") from None
