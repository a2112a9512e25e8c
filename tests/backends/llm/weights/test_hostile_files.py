"""Model files written to hurt are refused at once and take no memory, whatever they claim."""

import contextlib
import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_files import trained, write_gguf
from hostile_files import CONFIG, GGUF, SAFETENSORS, number
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import patience
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from trivet.backends.api import LoadFailed
from trivet.backends.llm.weights.files import load_model
from trivet.backends.llm.weights.gguf_header import BrokenHeader, read_header

MIB = 1024 * 1024


def refused(path: Path) -> str:
    """Why; at once and without memory."""
    tracemalloc.start()
    started_s = time.process_time()
    with pytest.raises(LoadFailed) as caught:
        load_model(path, torch.float32)
    took_s = time.process_time() - started_s
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took_s < patience(1)
    assert peak_bytes < 4 * MIB
    assert str(path.parent) not in caught.value.message
    return caught.value.message


@pytest.mark.more_of("R10")
@pytest.mark.parametrize("claim", GGUF)
def test_gguf_that_claims_what_cannot_be_is_refused(tmp_path: Path, claim: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GGUF[claim])
    assert "'model.gguf' is no readable GGUF file" in refused(path)


@pytest.fixture(scope="module")
def good_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    weights = np.ones((4, 32), np.float32)
    tokens = trained(pre_tokenizers.ByteLevel(), vocabulary_size=280)
    write_gguf(path, "llama", tokens, {"a": (weights, Kind.F32), "b": (weights, Kind.Q8_0)})
    read_header(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def spot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.gguf"


def test_every_byte_of_a_header_may_be_wrong(good_gguf: bytes, tmp_path: Path) -> None:
    """Nothing but BrokenHeader comes of it, and soon."""
    path = tmp_path / "model.gguf"
    dice = random.Random(7)
    num_refused = 0
    for _ in range(600):
        spoilt = bytearray(good_gguf[: dice.choice([len(good_gguf), dice.randrange(9000)])])
        for _ in range(dice.randrange(1, 4)):
            place = dice.randrange(min(len(spoilt), dice.choice([64, 400, 6000]))) if spoilt else 0
            spoilt[place : place + 1] = bytes([dice.choice([0, 1, 9, 127, 128, 255])])
        path.write_bytes(spoilt)
        try:
            read_header(path)
        except BrokenHeader:
            num_refused += 1
    assert num_refused > 100


@settings(max_examples=150, deadline=int(patience(1) * 1000))
@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_are_refused_or_read(spot: Path, rest: bytes) -> None:
    spot.write_bytes(b"GGUF" + number(3, 4) + rest)
    with contextlib.suppress(BrokenHeader):
        read_header(spot)


# -- safetensors -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Hugging Face folder whose weights are to be spoilt."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a": torch.ones(8)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.more_of("R11")
@pytest.mark.parametrize("claim", SAFETENSORS)
def test_safetensors_that_contradict_themselves_are_refused(folder: Path, claim: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(SAFETENSORS[claim])
    assert "'model.safetensors' cannot be read" in refused(folder)


@pytest.mark.parametrize(
    "words",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
        {"trust_remote_code": True},
    ],
)
def test_code_that_a_folder_brings_along_is_never_imported(
    folder: Path, words: dict[str, Any]
) -> None:
    """Its config may name it; nothing here reads the name."""
    canary = folder / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Model: pass\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | words))
    with pytest.raises(LoadFailed):
        load_model(folder, torch.float32)  # for want of a tokenizer
    assert not canary.exists()
