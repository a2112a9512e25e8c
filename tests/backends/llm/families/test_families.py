"""Every family computes what `transformers` does, or says which key of a config it does not.

What the families are is declared in `tests/family_models.py`; docs/llm.md lists them.
"""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from documents import ROOT
from family_models import BY_NAME, FAMILIES, Made, logits, saved, variants
from paged_models import Paged, Steps
from real_engine import DrivenEngine
from torch import Tensor

from trivet.backends.api import LoadFailed, Sampling
from trivet.backends.llm.engine import assemble
from trivet.backends.llm.families import registry
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.weights.files import load_model

VOCABULARY = 96
LENGTHS = (37, 70, 5, 64)
PROMPTS = [[random.Random(n).randrange(VOCABULARY) for _ in range(n)] for n in LENGTHS]
SHORTER = (37, 60)
"""Within what every way of scaling positions serves."""
CUT = [prompt[:length] for prompt, length in zip(PROMPTS, SHORTER, strict=False)]
STEPS: Steps = [(17, 30, 1, 0), (20, 1, 1, 40), (0, 38, 1, 1), (0, 1, 1, 22), (0, 0, 1, 1)]
"""Chunks beside single tokens of sequences that join and pause."""
NUM_NEW = 6
SAMPLING = Sampling(
    max_tokens=NUM_NEW, temperature=0.0, ignore_eos=True, prompt_logprobs=0, logprobs=0
)
PROMPTED = [[3, *PROMPTS[1][:40]], [3, *PROMPTS[1][:40], 8], [9] * 5, PROMPTS[1][:30]]
"""Two of them begin alike."""
TOLERANCE = 1e-4
every_family = pytest.mark.parametrize("name", BY_NAME)
ALWAYS = {"Gemma2", "Cohere2", "Bloom", "Qwen2Moe", "DeepseekV3", "GptOss"}
"""Between them they have caps, windows, linear biases, layers that differ, experts, latents and
sinks; the others are generated with in the long tier."""
some_families = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in BY_NAME],
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(before)


@every_family
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    made = BY_NAME[name]
    values = made.values()
    model = made.model(values)
    config, weights, _ = load_model(saved(model, values, tmp_path), torch.float32)
    theirs = torch.cat(logits(model, PROMPTS))
    assert theirs.std() > 0.05
    found = torch.cat(Paged(config, weights, 16, LENGTHS).run(PROMPTS, STEPS))
    torch.testing.assert_close(found, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in ALWAYS)) for name in BY_NAME],
)
def test_greedy_tokens_and_prompt_logprobs_equal_those_of_transformers(
    name: str, tmp_path: Path
) -> None:
    made = BY_NAME[name]
    values = made.values()
    model = made.model(values)
    saved(model, values, tmp_path)
    wanted = [generated(model, prompt) for prompt in PROMPTED]
    for prefix_caching in (True, False):
        engine = opened(tmp_path, prefix_caching=prefix_caching)
        for _ in range(2):  # the second time from the prefix cache, if there is one
            engine.tokens(PROMPTED, SAMPLING)
            results = [engine.results[str(index)] for index in range(len(PROMPTED))]
            assert [result.tokens for result in results] == [tokens for tokens, _ in wanted]
            for result, (_, theirs) in zip(results, wanted, strict=True):
                assert result.prompt_logprobs is not None
                ours = torch.tensor([each[1] for each in result.prompt_logprobs])
                torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)
        alone = [engine.tokens([prompt], SAMPLING)[0] for prompt in PROMPTED]
        assert alone == [tokens for tokens, _ in wanted]


def opened(folder: Path, *, prefix_caching: bool) -> DrivenEngine:
    """Built as the server builds it: 4 tokens in a block, 16 in a step."""
    driven = DrivenEngine()
    settings = EngineSettings(
        str(folder), dtype="float32", num_threads=1, block_size=4, max_batched_tokens=16,
        kv_cache_bytes=1 << 21, prefix_caching=prefix_caching, max_num_seqs=8,
    )  # fmt: skip
    driven.engine, _ = assemble.make_engine(settings, driven.send)
    return driven


@torch.inference_mode()
def generated(model: Any, prompt: list[int]) -> tuple[list[int], Tensor]:
    """Greedy tokens, and what the prompt's tokens but the first are thought of."""
    given = torch.tensor([prompt])
    output = model.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=NUM_NEW,
        min_new_tokens=NUM_NEW, eos_token_id=VOCABULARY + 1, pad_token_id=0,
    )  # fmt: skip
    chances = logits(model, [prompt])[0].log_softmax(dim=-1)[:-1]
    return output[0, len(prompt) :].tolist(), chances.gather(1, given.t()[1:]).flatten()


# -- configs that differ ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
@every_family
def test_no_key_of_a_config_makes_it_silently_wrong(name: str, tmp_path: Path) -> None:
    made = BY_NAME[name]
    exact = 0
    for number, changes in enumerate(variants(made)):
        values = made.values(changes)
        theirs = of_transformers(made, values)
        if theirs is None:
            continue
        model, wanted = theirs
        try:
            config, weights, _ = load_model(
                saved(model, values, folder(tmp_path, number)), torch.float32
            )
        except LoadFailed as error:
            told = str(error)
            # Where one key makes another count, it is that which cannot be computed.
            if not any(key in told for key in named(values | changes)):
                pytest.fail(f"{changes}: {told}")
            continue
        found = torch.cat(Paged(config, weights, 16, SHORTER).run(CUT, [SHORTER]))
        scale = max(1.0, float(wanted.std()))
        assert (found - wanted).abs().max() < TOLERANCE * scale, f"silently wrong: {changes}"
        exact += 1
    assert exact > 5


def named(changes: dict[str, Any]) -> set[str]:
    """Keys of which a refusal must name one: within objects, too."""
    keys = set(changes)
    for value in changes.values():
        keys |= named(value) if isinstance(value, dict) else set()
    return keys


def folder(place: Path, number: int) -> Path:
    made = place / str(number)
    made.mkdir()
    return made


def of_transformers(made: Made, values: dict[str, Any]) -> tuple[Any, Tensor] | None:
    """A model and its logits; None where transformers does not take the config."""
    try:
        model = made.model(values)
        found = torch.cat(logits(model, CUT))
    except Exception:  # noqa: BLE001  # whatever it says
        return None
    return (model, found) if found.isfinite().all() else None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("OPT", {"do_layer_norm_before": False}),
        ("OPT", {"word_embed_proj_dim": 16}),
        ("StableLm", {"qk_layernorm": True}),
        ("Bloom", {"apply_residual_connection_post_layernorm": True}),
        ("Falcon", {"alibi": True}),
        ("Llama", {"hidden_act": "tanh"}),
    ],
)
def test_what_a_family_does_not_compute_is_computed_by_transformers_classes(
    name: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    made = BY_NAME[name]
    values = made.values(changes)
    model = made.model(values)
    saved(model, values, tmp_path)
    wanted = [generated(model, prompt)[0] for prompt in PROMPTED]
    engine = opened(tmp_path, prefix_caching=True)
    assert engine.tokens(PROMPTED, SAMPLING) == wanted


# -- what is told ----------------------------------------------------------------------------------


def test_each_family_is_declared_and_told() -> None:
    declared = {made.hub_class for made in FAMILIES}
    assert declared == {family.hub_class for family in registry.FAMILIES}
    text = (ROOT / "docs" / "llm.md").read_text()
    block = re.search(r"<!-- families -->\n(.*?)\n<!-- /families -->", text, re.DOTALL)
    assert block is not None
    assert set(re.findall(r"`(\w+)`", block[1])) == declared


def test_an_architecture_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(LoadFailed, match=r"'MambaForCausalLM'; supported are .*'LlamaForCausalLM'"):
        registry.from_hub({"architectures": ["MambaForCausalLM"]})
