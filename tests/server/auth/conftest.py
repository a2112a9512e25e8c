"""A keys file with one key of each scope; certificates."""

from pathlib import Path

import pytest
from auth_site import Certificates, Keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """One key of each scope, named for it."""
    made = Keys(tmp_path / "keys.toml")
    for scope in ("infer", "admin", "metrics"):
        made.add(scope, scope)
    return made


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)
