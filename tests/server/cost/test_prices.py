"""What a file of prices may say."""

from pathlib import Path

import pytest

from trivet.backends.api import InvalidConfig
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trivet.server.cost.prices import Prices, read_prices

FAULTS = {
    "": "it lacks machine_hour",
    "machine_hour = -1": "machine_hour is to be a price, a number from 0, got -1",
    "machine_hour = nan": "a number from 0, got nan",
    "machine_hours = 1": "it has no key 'machine_hours'; did you mean 'machine_hour'?",
    "machine_hour = 1\n[models.a]\nhours = 1": "[models.a] has 'hour' and nothing else",
    'machine_hour = 1\n[models.a]\nhour = "1"': "models.a.hour is to be a price",
    "machine_hour = 1\ncurrency = 1": "currency is to be a short text",
    "machine_hour": "cannot be read",
}


def read(folder: Path, text: str) -> Prices:
    path = folder / "prices.toml"
    path.write_text(text)
    return read_prices(path)


@pytest.mark.parametrize("text", FAULTS)
def test_a_file_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as refused:
        read(tmp_path, text)

    assert FAULTS[text] in refused.value.message
    assert "prices.toml" in refused.value.message


def test_a_model_costs_what_it_computes_on(tmp_path: Path) -> None:
    text = "machine_hour = 3.6\ngpu_hour = 36\n[models.own]\nhour = 7200"
    prices = read(tmp_path, text)
    on_gpu = ModelConfig(instance_group=[ModelInstanceGroup(kind="KIND_GPU")])

    assert prices.per_second("any", ModelConfig()) == pytest.approx(0.001)
    assert prices.per_second("any", on_gpu) == pytest.approx(0.01)
    assert prices.per_second("own", on_gpu) == 2.0
