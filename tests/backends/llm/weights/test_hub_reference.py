"""The reference that the engine is compared with is what `transformers` itself reads."""

import pytest
import torch
import transformers
from hub_reference import hub_model
from real_engine import SMOLLM2, needs_weights

pytestmark = needs_weights


@pytest.mark.slow
def test_the_reference_is_what_transformers_reads() -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        SMOLLM2.parent, gguf_file=SMOLLM2.name, dtype=torch.float32
    )
    ours = hub_model(SMOLLM2)
    wanted = theirs.state_dict()
    assert ours.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.state_dict().items())
    ids = torch.tensor([[1, 4093, 198, 2, 0, 17, 33, 2701]])
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)
