"""Fixtures of the TensorFlow tests."""

import pytest
from tensorflow_results import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.made_in(tmp_path_factory.mktemp("tensorflow"))
