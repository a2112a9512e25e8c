"""What an engine says when it is built: the arithmetic of its cache, what its model recommends."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from paged_models import save_model
from scripted_llama import write_script
from tokenizers import Tokenizer

from trivet.backends.api import LoadFailed
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.settings import EngineSettings

RECOMMENDED = {"eos_token_id": 1, "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 50}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model in Hugging Face's form."""
    folder = save_model(tmp_path_factory.mktemp("model"))
    (folder / "generation_config.json").write_text(json.dumps(RECOMMENDED))
    return folder


def info(folder: Path, **more: Any) -> dict[str, Any]:
    """What a new engine says of itself."""
    settings = EngineSettings(
        str(folder), device="cpu", dtype="float32", num_threads=1, max_num_seqs=4,
        kv_cache_bytes=1 << 22, **more,
    )  # fmt: skip
    engine, found = assemble.make_engine(settings, lambda message: None)
    engine.close()
    return found


def test_the_arithmetic_of_the_cache_is_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((folder / "config.json").read_text())
    heads, size = config["num_key_value_heads"], config["head_dim"]
    with caplog.at_level(logging.INFO):
        found = info(folder, max_model_len=64)
    told = [record.message for record in caplog.records if "key/value cache" in record.message]
    token_bytes = 2 * 2 * heads * size * 4
    start = f"key/value cache: 2 x 2 layers x {heads} heads x {size} x 4 bytes = {token_bytes} "
    assert told[0].startswith(start)
    # Four sequences of 64 tokens in blocks of 16: more would never be used.
    assert told[0].endswith("256 tokens in 17 blocks of 16: 4.0 sequences of 64 tokens")
    assert found["max_model_len"] == 64
    assert found["host_cache_bytes"] == 17 * 16 * token_bytes
    in_8_bits = info(folder, max_model_len=64, kv_cache_dtype="fp8")
    assert in_8_bits["host_cache_bytes"] == 17 * 16 * token_bytes // 4


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused_with_both_numbers(
    tmp_path: Path,
) -> None:
    folder = write_script(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"<more {number}>" for number in range(3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    size = config["vocab_size"]
    with pytest.raises(LoadFailed, match=f"has {size + 3} token ids, .* vocabulary has {size} "):
        info(folder, max_model_len=64)


def test_what_a_model_recommends_is_told_unless_it_is_not_wanted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = info(folder)
    assert found["sampling_defaults"] == {"temperature": 0.6, "top_p": 0.9, "max_tokens": 50}
    assert "generation_config.json" in caplog.text
    assert info(folder, generation_config="none")["sampling_defaults"] == {}
