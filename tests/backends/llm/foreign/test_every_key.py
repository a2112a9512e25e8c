"""Whatever a config says, transformers' classes give what transformers gives, or are refused."""

from collections import Counter

import pytest
from class_variants import all_variants, outcome


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_key_of_a_class_makes_it_silently_wrong() -> None:
    counts = Counter(outcome(variant).split(":")[0] for variant in all_variants())
    assert counts["exact"] > 5 * counts["refused"]
