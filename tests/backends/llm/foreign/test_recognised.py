"""Which folders are language models, by what their config.json names."""

import json

import pytest

from trivet.backends.api import Claim, Listing, Match
from trivet.backends.llm.about import ABOUT


@pytest.mark.parametrize(
    ("architecture", "is_one"),
    [
        ("LlamaForCausalLM", True),
        ("GPT2LMHeadModel", True),
        ("XLMWithLMHeadModel", True),
        ("BertGenerationDecoder", True),
        ("SmolVLMForConditionalGeneration", True),
        ("Idefics3ForConditionalGeneration", True),
        ("BertForMaskedLM", False),
        ("T5ForConditionalGeneration", False),
        ("BertModel", False),
    ],
)
def test_a_folder_is_known_by_its_architecture(architecture: str, is_one: bool) -> None:
    config = json.dumps({"architectures": [architecture]}).encode()
    listing = Listing(frozenset({"config.json", "model.safetensors"}), head_of=lambda path: config)
    assert ABOUT.match(listing) == (Match(Claim.CONTENT) if is_one else None)
