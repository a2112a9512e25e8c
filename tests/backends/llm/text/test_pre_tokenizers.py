"""Each name that GGUF files give a pre-tokenizer cuts text as the models' own do.

With these names llama.cpp gives the same tokens of files whose merges go over every cut (compared
with xllamacpp 2026.10, on 400 texts each); what it does not do is to compose characters first.
"""

import json
from typing import Any

import pytest
import tokenizers
from transformers.models.cohere.tokenization_cohere import CohereTokenizer
from transformers.models.gpt_neox.tokenization_gpt_neox import GPTNeoXTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from trivet.backends.api import LoadFailed
from trivet.backends.llm.text.pre_tokenizers import pre_tokenizer

TEXT = "It's  x12345 ¿Q_ue\u0301A?\n\nHTMLPage! 中文b'LL/\n"
CUTS = [
    ("default gpt2 gpt-2 phi-2 jais trillion granite-docling gigachat a.x-4.0 mellum "
     "exaone4 olmo mpt",
     "It|'s| | x|12345| ¿|Q|_|ue|\u0301|A|?|\n|\n|HTMLPage|!| 中文b|'|LL|/|\n"),
    ("smollm starcoder refact codeshell exaone minerva-7b default-digits command-r",
     "It|'s| | x|1|2|3|4|5| ¿|Q|_|ue|\u0301|A|?|\n|\n|HTMLPage|!| 中文b|'|LL|/|\n"),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 chatglm-bpe "
     "glm4 smaug-bpe dbrx",
     "It|'s| | x|123|45| ¿|Q|_ue|\u0301A|?\n\n|HTMLPage|!| 中文b|'LL|/\n"),
    ("qwen2 deepseek-r1-qwen megrez stablelm2",
     "It|'s| | x|1|2|3|4|5| ¿|Q|_ue|\u0301A|?\n\n|HTMLPage|!| 中文b|'LL|/\n"),
    ("qwen35",
     "It|'s| | x|1|2|3|4|5| ¿|Q|_ue\u0301A|?\n\n|HTMLPage|!| 中文b|'LL|/\n"),
    ("tekken",
     "It|'s| | x|1|2|3|4|5| ¿|Q|_ue\u0301|A|?\n\n|HTMLPage|!| 中文b|'LL|/\n"),
    ("gpt-4o llama4",
     "It's| | x|123|45| ¿|Q|_ue\u0301|A|?\n\n|HTMLPage|!| 中文b'LL|/\n"),
    ("tiny_aya",
     "It's| | x|12|345| ¿|Q|_ue\u0301|A|?\n\n|HTMLPage|!| 中文b'LL|/\n"),
    ("superbpe",
     "It's  x|12|345| ¿Q_ue\u0301A?\n\nHTMLPage! 中文b'LL/\n"),
    ("seed-coder",
     "It|'s| | x|1|2|3|4|5| ¿|Q|_ue|\u0301A|?|\n\n|HTMLPage|!| 中文b|'LL|/|\n"),
    ("deepseek-llm",
     "It|'|s| | x|12345| ¿|Q|_|ue|\u0301|A|?|\n|\n|HTMLPage|!| |中文|b|'|LL|/|\n"),
    ("deepseek-coder",
     "It|'|s| | x|1|2|3|4|5| ¿|Q|_|ue|\u0301|A|?|\n|\n|HTMLPage|!| |中文|b|'|LL|/|\n"),
    ("deepseek-v3",
     "It|'s| | x|123|45| ¿|Q|_ue|\u0301A|?\n\n|HTMLPage|!| |中文|b|'LL|/\n"),
    ("falcon",
     "It|'|s| | x|123|45| |¿|Q|_|ue|\u0301|A|?|\n|\n|HTMLPage|!| 中文b|'|LL|/|\n"),
    ("bloom poro-chat gpt3-finnish",
     "It's| | x12345| ¿Q_ue\u0301A|?\n\n|HTMLPage|!| 中文b'LL/|\n"),
    ("viking",
     "It's| | x|1|2|3|4|5| ¿Q_ue\u0301A|?\n\n|HTMLPage|!| 中文b'LL/|\n"),
]  # fmt: skip
"""Names, and the pieces into which they cut."""
ORIGINALS = {
    "command-r": CohereTokenizer,
    "olmo": GPTNeoXTokenizer,
    "qwen2": Qwen2Tokenizer,
    "qwen35": Qwen3_5Tokenizer,
}
OTHERS = [
    "naïve café Größe où ça 東京都に行きました。 Привет, мир! ½² ٣٤ ǅ",
    "e\u0301 \u1100\u1161 \u00a0\u3000x  \r\n\t\n y   ",
    "$5 +6 <7> =8 ^h~ `i` |j| don't DON'T (a) [b] {c} 🙂\u200b",
]


def cutting(name: str) -> Any:
    """A tokenizer without a vocabulary that cuts as a name says."""
    found = pre_tokenizer(name)
    return tokenizers.Tokenizer.from_str(
        json.dumps({
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": found.normalizer, "pre_tokenizer": found.cutter, "decoder": None,
            "post_processor": None, "model": {"type": "BPE", "vocab": {}, "merges": []},
        })
    )  # fmt: skip


@pytest.mark.parametrize(("names", "cuts"), CUTS)
def test_names_cut_text_where_the_models_do(names: str, cuts: str) -> None:
    for name in names.split():
        pieces = cutting(name).pre_tokenizer.pre_tokenize_str(TEXT)
        assert "|".join(TEXT[start:stop] for _, (start, stop) in pieces) == cuts, name


@pytest.mark.parametrize("name", ORIGINALS)
def test_names_of_classes_of_transformers_are_those(name: str) -> None:
    ours, theirs = cutting(name), ORIGINALS[name]()._tokenizer
    for text in (TEXT, *OTHERS):
        composed = ours.normalizer.normalize_str(text)
        assert composed == theirs.normalizer.normalize_str(text)
        cut = ours.pre_tokenizer.pre_tokenize_str(composed)
        assert cut == theirs.pre_tokenizer.pre_tokenize_str(composed)


def test_another_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(LoadFailed, match=r"'kimi-k2' \(tokenizer.ggml.pre\) is not known.*tekken"):
        pre_tokenizer("kimi-k2")
