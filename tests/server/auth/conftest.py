"""A keys file with one key of each scope; certificates; TLS on both event loops."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from auth_site import Certificates, Keys


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each loop has a TLS of its own."""
    if item.path.name == "test_tls.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


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
