"""Every class of transformers that generates text: served from a folder it gives what `generate`
gives, or it is refused; docs/llm.md says which."""

import pytest
from decoder_classes import BY_FAMILY, outcome_of, written
from tiny_decoders import MODEL_TYPES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trivet.backends.llm.families.registry import FAMILIES

EXAMPLES = {
    "stablelm": "as one flattened batch",
    "gpt_neo": "one sequence after the other",
    "lfm2": "one sequence after the other",
}
"""Of each way that is often taken: attention through the interface; attention of its own, with a
window; a state."""
LEAST_SHARE = 0.9
KNOWN = [
    model_type for model_type in MODEL_TYPES
    if MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type] in {each.hub_class for each in FAMILIES}
]  # fmt: skip


@pytest.mark.parametrize("model_type", EXAMPLES)
def test_a_class_without_a_family_is_computed_by_transformers(model_type: str) -> None:
    assert outcome_of(model_type).way == EXAMPLES[model_type]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_class_gives_what_generate_gives_or_is_refused(model_type: str) -> None:
    assert outcome_of(model_type).way == written()[model_type].way, "run `make classes`"


@pytest.mark.slow
@pytest.mark.parametrize("model_type", KNOWN)
def test_a_class_that_has_a_family_gives_what_generate_gives(model_type: str) -> None:
    assert outcome_of(model_type, with_families=True).way == BY_FAMILY


def test_nearly_all_classes_are_served() -> None:
    served = [outcome for outcome in written().values() if outcome.way]
    assert written().keys() == set(MODEL_TYPES)
    assert len(served) >= LEAST_SHARE * len(MODEL_TYPES)
