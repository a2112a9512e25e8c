"""Backends are known by what they say of themselves: nobody else names one, or imports one."""

import ast
from pathlib import Path

import pytest
from house_rules import ROOT, Source, sources

from trivet.backends.registry import abouts

# Modules that may name a backend, and why.
NAMING = {
    ("ensembles/about.py", "ensemble"): "its own About",
    ("server/app.py", "llm"): "what the option --llm-in-process is for",
    ("server/grpc/http2/heads.py", "identity"): "HTTP's word for no compression",
    ("server/grpc/http2/messages.py", "identity"): "the same",
    ("server/http/body.py", "identity"): "the same",
    ("server/http/compression.py", "identity"): "the same",
    ("server/remote/hub.py", "identity"): "the same",
    ("server/remote/addresses.py", "mlflow"): "how addresses of its registry begin",
}


def texts(source: Source) -> set[str]:
    """The literals of a module."""
    nodes = ast.walk(source.tree)
    return {
        each.value
        for each in nodes
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def imported(source: Source) -> set[str]:
    """The folders of backends that a module imports from."""
    names: list[str] = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    found = [name.split(".") for name in names if name.startswith("trivet.backends.")]
    return {parts[2] for parts in found}


def rooms() -> set[str]:
    """The folders of backends."""
    return {path.parent.name for path in Path(ROOT / "backends").glob("*/about.py")} - {"api"}


def test_the_server_names_no_backend() -> None:
    words = {word for about in abouts().values() for word in (about.word, *about.platforms)}
    naming = {
        (source.name, word)
        for source in sources()
        if source.name.startswith(("server/", "ensembles/"))
        for word in texts(source) & words
    }

    assert naming - NAMING.keys() == set()
    assert NAMING.keys() - naming == set(), "listed, but names it no longer"


def test_no_backend_is_imported_but_by_itself() -> None:
    """Not by another one, nor by what backends share, nor by server and ensembles."""
    found = {
        (source.name, room)
        for source in sources()
        for room in imported(source) & rooms()
        if not source.name.startswith(f"backends/{room}/")
    }

    assert {"onnxruntime", "llm", "testing"} <= rooms()
    assert found == set()


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_backend_is_at_home_in_its_folder(room: str) -> None:
    homes = {about.word: about.backend for about in abouts().values()}

    assert any(home.startswith(f"trivet.backends.{room}.") for home in homes.values())
