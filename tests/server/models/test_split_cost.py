"""What a split costs each request, beside one without."""

from timeit import repeat

import pytest
from made_models import made_model
from patience import patience

from trivet.backends.api import NotFound, Signature
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.routing import Routers
from trivet.server.models.traffic import EVEN, Traffic, parse_traffic

SPLIT = parse_traffic("[labels]\nstable = 1\ncanary = 2\n[split]\nstable = 95\ncanary = 5")
NUMBER = 2000


def seconds(traffic: Traffic, key: str) -> float:
    """Of one choice, at best."""
    signature = Signature.from_config(ModelConfig())
    versions = {number: made_model("m", signature, version=number) for number in (1, 2)}
    routers = Routers(lambda name: NotFound(name))
    routers.replace("m", versions, {}, traffic)
    return min(repeat(lambda: routers.resolve("m", None, key), number=NUMBER, repeat=20)) / NUMBER


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("key", ["", "4711"])
def test_a_split_adds_a_microsecond_at_the_most(key: str) -> None:
    assert seconds(SPLIT, key) - seconds(EVEN, key) <= patience(1e-6)
