"""How many positions a model of transformers has, by its config."""

from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from trivet.backends.llm.foreign.positions import max_positions


@pytest.mark.parametrize(
    ("model_type", "values", "expected"),
    [
        ("stablelm", {"max_position_embeddings": 512}, 512),
        ("ctrl", {"n_positions": 256}, 256),
        ("whisper", {"max_target_positions": 448}, 448),
        ("mamba", {}, 8192),
    ],
)
def test_the_limit_is_the_one_of_the_table_that_a_class_has(
    model_type: str, values: dict[str, Any], expected: int
) -> None:
    assert max_positions(CONFIG_MAPPING[model_type](**values)) == expected
