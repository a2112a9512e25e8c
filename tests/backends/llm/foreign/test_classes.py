"""Which class a config.json is of, and what is refused of it."""

from typing import Any

import pytest
import torch

from trivet.backends.api import LoadFailed
from trivet.backends.llm.foreign.classes import find_class
from trivet.backends.llm.foreign.reading import make_model

STABLELM: dict[str, Any] = {
    "architectures": ["StableLmForCausalLM"], "model_type": "stablelm", "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
}  # fmt: skip


def test_a_class_is_found_by_model_type() -> None:
    found = find_class(STABLELM)
    assert found.name == "StableLmForCausalLM"
    assert found.config.hidden_size == 32


def test_what_a_file_would_have_fetched_or_chosen_is_left_out() -> None:
    told = {
        "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"},
        "_attn_implementation": "somebody/kernels",
        "attn_implementation": "somebody/kernels",
        "experts_implementation": "somebody/kernels",
    }
    config = find_class({**STABLELM, **told}).config
    assert config._attn_implementation_internal is None
    assert not hasattr(config, "auto_map")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "evil"}, "'evil', which neither trivet nor transformers .* has; code that"),
        ({"model_type": "vit"}, "no language model that generates text"),
        ({"model_type": "t5"}, "no language model that generates text"),
        ({"architectures": ["StableLmForTokenClassification"]},
         "'StableLmForTokenClassification'; of model_type 'stablelm' .* 'StableLmForCausalLM'"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by 'awq'"),
        ({"quantization_config": "awq"}, "quantised by 'awq'"),
        ({"hidden_size": "wide"}, "StableLmConfig can be made with: .*'hidden_size'"),
        ({"rope_scaling": "far"}, "StableLmConfig can be made with: .*'rope_parameters'"),
        ({"torch_dtype": "nope"}, "StableLmConfig can be made with: .*'nope'"),
    ],
)  # fmt: skip
def test_what_is_no_decoder_is_refused_with_the_reason(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        find_class({**STABLELM, **changes})


def test_numbers_that_make_no_model_are_refused_with_the_reason() -> None:
    with pytest.raises(LoadFailed, match=r"transformers cannot load the folder: .*zero"):
        make_model(find_class({**STABLELM, "num_attention_heads": 0}), {}, torch.float32)
