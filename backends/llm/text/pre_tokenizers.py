"""How text is cut before byte pairs are merged, by the name that GGUF files give it.

llama.cpp's converter knows a tokenizer by what it makes of a text, and writes a name for it
(`tokenizer.ggml.pre`). Behind a name stands what the models' own tokenizer.json say: regular
expressions, digits one by one, characters composed first. What is here are parts of such a file.
"""

# ruff: noqa: RUF001  # the expressions are those of the models' files, letter by letter

from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed

Part = dict[str, Any]
"""An object in the form of tokenizer.json."""


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """What a name stands for."""

    steps: tuple[Part, ...]
    composes: bool = False
    """Characters are composed first (NFC)."""
    takes_whole_words: bool = False
    """A word that is a token is taken without merging."""
    adds_bos: bool = False
    """Texts begin with a mark where the file does not say whether they do."""

    @property
    def normalizer(self) -> Part | None:
        """What is done to the text before it is cut."""
        return {"type": "NFC"} if self.composes else None

    @property
    def cutter(self) -> Part:
        """What cuts it; bytes become characters in the end."""
        return {"type": "Sequence", "pretokenizers": list(self.steps)}


def pre_tokenizer(name: str) -> PreTokenizer:
    """What a name of GGUF stands for. Raises LoadFailed for one that is not known."""
    found = _BY_NAME.get(name)
    if found is None:
        raise LoadFailed(
            f"the GGUF file's pre-tokenizer '{name}' (tokenizer.ggml.pre) is not known; use the "
            "Hugging Face folder of the model, which says how text is split; known are "
            + ", ".join(sorted(_BY_NAME))
        )
    return found


def _bytes(*, cuts: bool) -> Part:
    """Bytes as characters; `cuts`: at GPT-2's words first."""
    return {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": cuts,
    }  # fmt: skip


_WORDS, _BYTES = _bytes(cuts=True), _bytes(cuts=False)
_DIGITS = {"type": "Digits", "individual_digits": True}
_PUNCTUATION = {"type": "Punctuation", "behavior": "Contiguous"}


def _split(regex: str) -> Part:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _splits(*regexes: str, **more: bool) -> PreTokenizer:
    return PreTokenizer((*map(_split, regexes), _BYTES), **more)


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_THREE_DIGITS = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_END}"
_ONE_DIGIT = _THREE_DIGITS.replace("{1,3}", "")
_WITH_MARKS = _ONE_DIGIT.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
    r"\s\p{L}\p{N}]+", r"\s\p{L}\p{M}\p{N}]+"
)
# Words by their letters' case: OpenAI's o200k, with contractions behind, and Mistral's, without.
_CAPITALS, _SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BY_CASE_END = _END.replace(r"[\r\n]*", r"[\r\n/]*", 1)


def _by_case(behind: str, digits: str) -> str:
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{before}{_CAPITALS}*{_SMALL}+{behind}|{before}{_CAPITALS}+{_SMALL}*{behind}|"
        f"{digits}|{_BY_CASE_END}"
    )


_O200K = _by_case(f"{_CONTRACTIONS}?", r"\p{N}{1,3}")


def _ranges(points: str) -> str:
    """Inside of a character class: ranges by their code points, as some are hard to tell apart."""
    return "".join(
        "-".join(chr(int(point, 16)) for point in each.split("-")) for each in points.split()
    )


_DEEPSEEK_LETTERS = _ranges(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 "
    "388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD "
    "1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D "
    "1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 "
    "1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 "
    "212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE "
    "2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 "
    "FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 "
    "118A0-118DF 1E900-1E943"
)
_DEEPSEEK_SIGNS = "!-/:-~！-／：-～‘-‟　-。"
_HAN_OR_HANGUL = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    (
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
        r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"

_GPT2 = PreTokenizer((_WORDS,))
_COMPOSED = PreTokenizer((_WORDS,), composes=True)
_SINGLE_DIGITS = PreTokenizer((_DIGITS, _WORDS))
_LLAMA3 = _splits(_THREE_DIGITS, takes_whole_words=True, adds_bos=True)
_LIKE_LLAMA3 = _splits(_THREE_DIGITS)
_QWEN2 = _splits(_ONE_DIGIT, composes=True)
_BY_NAME: dict[str, PreTokenizer] = {
    # Files without a name are read as GPT-2's.
    **dict.fromkeys(
        (
            "default", "gpt2", "gpt-2", "phi-2", "jais", "trillion", "granite-docling", "gigachat",
            "a.x-4.0", "mellum", "exaone4",
        ),
        _GPT2,
    ),
    **dict.fromkeys(("olmo", "mpt"), _COMPOSED),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "default-digits"),
        _SINGLE_DIGITS,
    ),
    "command-r": PreTokenizer((_DIGITS, _WORDS), composes=True),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        _LLAMA3,
    ),
    **dict.fromkeys(("chatglm-bpe", "glm4", "smaug-bpe", "dbrx"), _LIKE_LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    "stablelm2": _splits(_ONE_DIGIT),
    "qwen35": _splits(_WITH_MARKS, composes=True),
    "tekken": _splits(_by_case("", r"\p{N}"), takes_whole_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4"), _splits(_O200K)),
    "tiny_aya": _splits(r"\d{1,3}(?=(?:\d{3})*\b)", _O200K),
    "superbpe": _splits(r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    "seed-coder": _splits(_ONE_DIGIT.replace(r"\p{L}\p{N}]+[\r\n]*", r"\p{L}\p{N}\r\n]+")),
    "deepseek-llm": _splits(
        r"[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", rf"\s?[{_DEEPSEEK_SIGNS}]+", r"\s+$",
        _HAN_OR_HANGUL, r"\p{N}+",
    ),
    "deepseek-coder": _splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_OR_HANGUL, r"\p{N}"),
    "deepseek-v3": _splits(*_DEEPSEEK_V3),
    "falcon": PreTokenizer((_PUNCTUATION, _WORDS, _split("[0-9][0-9][0-9]"))),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), _splits(_BLOOM)),
    "viking": _splits(_BLOOM, r"\p{N}"),
}  # fmt: skip
