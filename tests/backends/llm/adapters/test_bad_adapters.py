"""What is wrong with an adapter is said of it alone, with what it is and what it should be."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_models import BY_NAME, saved
from lora_adapters import CONFIG, WEIGHTS, edit, reweigh, write_adapter
from lora_engine import AdaptedEngine, open_adapted
from safetensors.torch import save_file

from trivet.backends.api import LoadFailed, Sampling
from trivet.backends.llm.adapters.places import Part, Places
from trivet.backends.llm.adapters.reading import read_adapter, read_files

Spoil = Callable[[Path], Any]
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdaptedEngine]:
    folder = tmp_path_factory.mktemp("lora")
    values = BY_NAME["Llama"].values()
    base = BY_NAME["Llama"].model(values)
    write_adapter(base, folder / "good", 0)
    saved(base, values, folder / "base")
    other = BY_NAME["Llama"].values({"hidden_size": 64, "num_hidden_layers": 3})
    write_adapter(BY_NAME["Llama"].model(other), folder / "other", 0)
    return folder, open_adapted(folder / "base", {"good": folder / "good"})


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    return lambda folder: reweigh(folder, lambda all_: all_ | {name: change(all_[name])})


def spoilt(weight: torch.Tensor) -> torch.Tensor:
    weight[0, 0] = float("nan")
    return weight


@pytest.mark.more_of("R38")
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: edit(f, use_dora=True), "'use_dora' is 'True': DoRA .*merge_and_unload"),
        (lambda f: edit(f, lora_bias=True), "'lora_bias' is 'True'"),
        (lambda f: edit(f, something_new=3), "'something_new' is '3': it is not computed here"),
        (lambda f: edit(f, peft_type="IA3"), "'peft_type' is 'IA3': LORA is served"),
        (lambda f: edit(f, task_type="SEQ_CLS"), "'task_type' is 'SEQ_CLS'"),
        (lambda f: edit(f, bias="all"), "'bias' is 'all'"),
        (lambda f: edit(f, r=8), "of shape \\[4, 48\\]; with this base and rank 8 .* \\[8, 48\\]"),
        (lambda f: edit(f, r=65), "'r' is '65': the limit is 64 .*max_lora_rank"),
        (lambda f: edit(f, r="four"), "'r' is 'four': it must be a whole number"),
        (lambda f: edit(f, lora_alpha=None), "'lora_alpha' is 'None': it must be a number"),
        (lambda f: edit(f, rank_pattern={"(": 3}), "it is no regular expression"),
        (pickled, "'adapter_model.bin' is a pickle, .*safe_serialization=True"),
        (lambda f: (f / WEIGHTS).unlink(), "there is no 'adapter_model.safetensors'"),
        (lambda f: (f / CONFIG).unlink(), "there is no adapter_config.json"),
        (lambda f: (f / CONFIG).write_text("{"), "is no JSON"),
        (lambda f: (f / WEIGHTS).write_bytes(b"x" * 50), "cannot be read"),
        (changed(Q, spoilt), f"weight '{re.escape(Q)}' has numbers that are NaN or infinite"),
        (changed(Q, lambda w: w[:, :16].contiguous()), "of shape \\[4, 16\\]"),
        (changed(Q, lambda w: w.int()), "is of torch.int32"),
        (lambda f: reweigh(f, lambda all_: {Q: all_[Q]}), "has lora_A.weight: of a layer's"),
        (
            lambda f: reweigh(f, lambda _: {"x.y.lora_A.weight": torch.ones(4, 4)}),
            "no matrix 'x.y'",
        ),
        (lambda f: reweigh(f, lambda _: {"odd": torch.ones(4)}), "is of a kind that is not comp"),
    ],
)
def test_a_bad_adapter_is_refused_alone(
    site: tuple[Path, AdaptedEngine], tmp_path: Path, spoil: Spoil, told: str
) -> None:
    folder, engine = site
    bad = tmp_path / "bad"
    shutil.copytree(folder / "good", bad)
    spoil(bad)
    read = engine.load("bad", bad)
    assert re.search(told, read.error), read.error
    plain = Sampling(max_tokens=2, temperature=0.0, ignore_eos=True)
    results = engine.ask([("good", [3, 4]), ("", [3, 4])], plain)
    assert all(len(result.tokens) == 2 for result in results)


def test_an_adapter_of_another_base_says_whose_it_is(site: tuple[Path, AdaptedEngine]) -> None:
    folder, engine = site
    edit(folder / "other", base_model_name_or_path="org/larger")
    error = engine.load("other", folder / "other").error
    assert "of shape [64, 4]; with this base and rank 4" in error
    assert error.endswith("it says that it is of base 'org/larger'")


def test_an_adapter_larger_than_all_room_is_refused(site: tuple[Path, AdaptedEngine]) -> None:
    folder, _ = site
    engine = open_adapted(folder / "base", {})
    bank = engine.engine._runner._adapters  # type: ignore[attr-defined]
    bank.budget = 1000
    error = engine.load("good", folder / "good").error
    assert re.search(r"takes \d+ bytes of the GPU's memory, and adapters have 1000 in all", error)


def test_a_base_without_slots_takes_none(site: tuple[Path, AdaptedEngine]) -> None:
    folder, _ = site
    engine = open_adapted(folder / "base", {}, max_loras=0)
    assert "model parameter max_loras is 0" in engine.load("good", folder / "good").error


@pytest.mark.parametrize(
    ("dtype", "value", "alpha"),
    [
        (torch.float16, 70000.0, 4),
        (torch.float16, 40000.0, 8),  # only with its scaling
        (torch.bfloat16, 3e38, 8),
        (torch.bfloat16, 3.4e38, 4),  # rounded up
    ],
)
def test_weights_too_large_for_the_bases_type_are_refused(
    tmp_path: Path, dtype: torch.dtype, value: float, alpha: int
) -> None:
    places = Places()
    places.vocabulary_size, places.hidden_size = 10, 32
    places.embedding, places.head = "model.embed_tokens", "lm_head"
    module = "model.layers.0.self_attn.o_proj"
    places.add((Part(module, 0, 32, 32),), 32)
    (tmp_path / CONFIG).write_text(f'{{"peft_type": "LORA", "r": 4, "lora_alpha": {alpha}}}')
    prefix = f"base_model.model.{module}"
    down, up = torch.ones(4, 32), torch.zeros(32, 4)
    up[0, 0] = value
    weights = {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(LoadFailed, match=rf"'{module}' has weights .* too large for {dtype}"):
        read_adapter(read_files(tmp_path), places, 64, dtype)
