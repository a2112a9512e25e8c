"""What a config may not say, and a model that cannot guess for another."""

import json
from pathlib import Path

import pytest
from paged_models import save_model
from tokenizers import Tokenizer

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.speculative_config import SpeculativeConfig, read_speculative_config


@pytest.mark.parametrize(
    ("text", "model", "wanted"),
    [
        ("", "", None),
        ("{}", "", SpeculativeConfig("ngram", 8)),
        ('{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 5}', "",
         SpeculativeConfig("ngram", 3, "", 2, 5)),
        ('{"prompt_lookup_min": 6}', "", SpeculativeConfig("ngram", 8, "", 6, 6)),
        ('{"method": "suffix", "suffix_decoding_max_cached_requests": 7}', "",
         SpeculativeConfig("suffix", 16, "", 2, 8, 7)),
        ('{"model": "small"}', "", SpeculativeConfig("draft_model", 5, "small")),
        ("", "small", SpeculativeConfig("draft_model", 5, "small")),
    ],
)  # fmt: skip
def test_vllms_words_are_read(text: str, model: str, wanted: SpeculativeConfig | None) -> None:
    assert read_speculative_config(text, model) == wanted


@pytest.mark.parametrize(
    ("text", "model", "error"),
    [
        ("ngram", "", "must be a JSON object"),
        ("[1]", "", "must be a JSON object"),
        ('{"method": "eagle3"}', "", "'eagle3'; it must be one of ngram, suffix, draft_model"),
        ('{"tokens": 3}', "", "'tokens' is unknown; known are method, model, num_spec"),
        ('{"num_speculative_tokens": 0}', "", "num_speculative_tokens is 0; .* from 1 to 64"),
        ('{"num_speculative_tokens": "5"}', "", "is '5'; it must be from 1 to 64"),
        ('{"prompt_lookup_min": 5, "prompt_lookup_max": 4}', "", "min is 5, more than .*max, 4"),
        ('{"method": "draft_model"}', "", "'model' goes with method 'draft_model'"),
        ('{"method": "ngram"}', "small", "'model' goes with method 'draft_model'; method is 'n"),
        ('{"model": "a"}', "b", "'model' is not the parameter speculative_model, 'b'"),
    ],
)
def test_what_cannot_be_done_is_named(text: str, model: str, error: str) -> None:
    with pytest.raises(InvalidConfig, match=error):
        read_speculative_config(text, model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("model"))
    save_model(folder / "draft")
    return folder


def refusal(folder: Path, max_model_len: int = 64) -> str:
    settings = EngineSettings(
        str(folder), device="cpu", dtype="float32", num_threads=1, max_num_seqs=4,
        kv_cache_bytes=1 << 22, max_model_len=max_model_len,
        speculative_model=str(folder / "draft"),
    )  # fmt: skip
    with pytest.raises(LoadFailed) as refused:
        assemble.make_engine(settings, lambda message: None)
    return refused.value.message


def test_a_model_of_another_vocabulary_guesses_nothing(folder: Path) -> None:
    path = folder / "draft" / "tokenizer.json"
    kept = path.read_text()
    tokenizer = Tokenizer.from_str(kept)
    tokenizer.add_tokens(["<other>"])
    tokenizer.save(str(path))
    number = tokenizer.token_to_id("<other>")
    assert f"another vocabulary: '<other>' is {number} there and no token here" in refusal(folder)
    path.write_text(kept)


def test_a_model_of_fewer_positions_guesses_nothing(folder: Path) -> None:
    path = folder / "draft" / "config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"max_position_embeddings": 32}))
    assert "it takes 32 tokens, the model that it guesses for 64" in refusal(folder)
    path.write_text(kept)
